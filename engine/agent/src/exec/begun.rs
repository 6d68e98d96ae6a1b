//! Which session was begun for which request. Invariant: a key names one session for as long as it is remembered, which is
//! longer than the session is kept: until [`MOST_KEYS`] younger ones have come.

use std::collections::{HashMap, VecDeque};

use brood_agent_proto::exec::{ExecId, ExecKey};

/// Keys remembered. With its place in the order each takes about 60 bytes.
const MOST_KEYS: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Begun {
    sessions: HashMap<ExecKey, ExecId>,
    order: VecDeque<ExecKey>,
}

impl Begun {
    pub(super) fn find(&self, key: ExecKey) -> Option<ExecId> {
        self.sessions.get(&key).copied()
    }

    /// Remembers a session that was begun under a key that nothing was begun under before.
    pub(super) fn add(&mut self, key: ExecKey, exec: ExecId) {
        self.sessions.insert(key, exec);
        self.order.push_back(key);
        if self.order.len() > MOST_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.sessions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_key_is_forgotten_for_the_newest_and_no_other() {
        let key = |number: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            ExecKey(bytes)
        };
        let most = u32::try_from(MOST_KEYS).expect("few");
        let mut begun = Begun::default();
        for number in 0..=most {
            begun.add(key(number), ExecId(number));
        }
        assert_eq!(begun.find(key(0)), None);
        for number in 1..=most {
            assert_eq!(begun.find(key(number)), Some(ExecId(number)));
        }
        assert_eq!(begun.sessions.len(), MOST_KEYS);
    }
}
