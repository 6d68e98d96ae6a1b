//! All connections of a device, and the order in which they may send to the guest.
//!
//! Invariant: a connection is in the queue exactly when its `queued` mark is set and it exists; resets of connections
//! that exist no more wait in a list that is bounded because the guest's packets are not taken while it is full.

use std::collections::{BTreeMap, VecDeque};

use super::conn::{Conn, Key};

/// Resets that may wait for receive buffers before the guest's packets have to wait.
const RESETS_MAX: usize = 1024;

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Table {
    conns: BTreeMap<Key, Conn>,
    queue: VecDeque<Key>,
    resets: VecDeque<Key>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.conns.contains_key(&key)
    }

    pub(super) fn conn_mut(&mut self, key: Key) -> Option<&mut Conn> {
        self.conns.get_mut(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Conn)> {
        self.conns.iter().map(|(key, conn)| (*key, conn))
    }

    /// Whether some connection has this port on the host's side.
    pub(super) fn uses_host_port(&self, host_port: u32) -> bool {
        let key = |guest_port| Key {
            host_port,
            guest_port,
        };
        self.conns.range(key(0)..=key(u32::MAX)).next().is_some()
    }

    /// Adds a connection with something to send.
    pub(super) fn insert(&mut self, key: Key, conn: Conn) {
        self.conns.insert(key, conn);
        self.enqueue(key);
    }

    /// Removes a connection without a word to the guest.
    pub(super) fn remove(&mut self, key: Key) -> Option<Conn> {
        self.conns.remove(&key)
    }

    /// The connection may have something to send.
    pub(super) fn enqueue(&mut self, key: Key) {
        if let Some(conn) = self.conns.get_mut(&key)
            && !conn.queued
        {
            conn.queued = true;
            self.queue.push_back(key);
        }
    }

    /// Every connection may have something to send.
    pub(super) fn enqueue_all(&mut self) {
        let keys: Vec<Key> = self.conns.keys().copied().collect();
        for key in keys {
            self.enqueue(key);
        }
    }

    /// Takes the next connection off the queue.
    pub(super) fn dequeue(&mut self) -> Option<Key> {
        while let Some(key) = self.queue.pop_front() {
            // A removed connection's place is skipped; a new one of the same ports has its own place or this one.
            if let Some(conn) = self.conns.get_mut(&key)
                && conn.queued
            {
                conn.queued = false;
                return Some(key);
            }
        }
        None
    }

    /// Takes the next connection that must be reset.
    pub(super) fn next_reset(&mut self) -> Option<Key> {
        self.resets.pop_front()
    }

    /// Puts back what [`Table::next_reset`] took.
    pub(super) fn retry_reset(&mut self, key: Key) {
        self.resets.push_front(key);
    }

    /// The guest is to be told that there is no such connection.
    pub(super) fn reset(&mut self, key: Key) {
        self.resets.push_back(key);
    }

    /// Whether packets of the guest, each of which may cause a reset, have to wait.
    pub(super) fn resets_full(&self) -> bool {
        self.resets.len() >= RESETS_MAX
    }

    /// Empties everything and hands out the connections.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Conn> + use<> {
        self.queue = VecDeque::new();
        self.resets = VecDeque::new();
        std::mem::take(&mut self.conns).into_values()
    }
}
