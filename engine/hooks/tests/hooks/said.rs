//! What bindings said.

use brood_hooks::{Checked, Denial, Heard, Hook, Permits, Said, check};

pub(crate) fn denial(message: &str) -> Denial {
    Denial {
        code: "policy".to_owned(),
        message: message.to_owned(),
        retry_after_ms: None,
    }
}

pub(crate) fn checked<H: Hook>(ask: &H::Ask, answer: H::Answer) -> Checked<H::Answer> {
    check::<H>(ask, &Permits::default(), answer).expect("a right answer")
}

/// By a plugin of the same name.
pub(crate) fn said<H: Hook>(binding: &str, heard: Heard<H::Answer>) -> Said<H> {
    Said {
        binding: binding.to_owned(),
        plugin: binding.to_owned(),
        weight: 1,
        heard,
        stands_in: None,
        spent: None,
    }
}

pub(crate) fn enforced<H: Hook>(binding: &str, ask: &H::Ask, answer: H::Answer) -> Said<H> {
    said(binding, Heard::Enforced(checked::<H>(ask, answer)))
}
