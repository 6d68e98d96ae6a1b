//! Ids, bytes, pages, guest addresses and stages: the words every crate shares. No I/O.
