//! The owner of a lineage: the one task that knows where its machines are.
//!
//! ```text
//!  work for A ─► owner ─ A is in her seat ─► a blocking thread has A, and does it ─► back in her seat, with her daughters
//!                   └─── A is away ────────► waits in A's line;  work for B goes on beside it
//! ```
//!
//! Who is hibernated has a seat as well: she is in it, asleep, and what is done with her has its turn like any other work.
//!
//! Invariant: a machine is in her seat or in the hands of exactly one piece of work, so that nobody needs a lock for her,
//! and the owner itself never waits for any of them. Work for a machine that is gone is told so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use brood_units::MachineId;
use tokio::sync::mpsc;

use super::guest::Guest;

/// Who sits in a seat.
pub(super) enum Seated {
    /// In a cell.
    Awake(Guest),
    /// On disk alone.
    Asleep,
}

/// What is left of a machine after a piece of work.
pub(super) struct After {
    /// She herself, if she is still there.
    pub(super) seated: Option<Seated>,
    /// Who was born of her.
    pub(super) born: Vec<(MachineId, Guest)>,
}

impl After {
    /// She goes back to her seat, alone.
    pub(super) fn back(guest: Guest) -> Self {
        Self::with(Seated::Awake(guest))
    }

    /// As whoever she is now.
    pub(super) fn with(seated: Seated) -> Self {
        Self {
            seated: Some(seated),
            born: Vec::new(),
        }
    }

    /// She is gone.
    pub(super) fn gone() -> Self {
        Self {
            seated: None,
            born: Vec::new(),
        }
    }
}

/// What is done with a machine, on a thread that may stand still; nothing is given to it where she is gone.
pub(super) type Work = Box<dyn FnOnce(Option<Seated>) -> (After, Tell) + Send>;

/// Tells whoever waits for a piece of work, once everybody sits again: who is told of a machine can ask for it.
pub(super) type Tell = Box<dyn FnOnce() + Send>;

/// Nobody is there to do it with.
fn refuse(work: Work) {
    let (_, tell) = work(None);
    tell();
}

enum Message {
    Seat(MachineId, Seated),
    Work(MachineId, Work),
    Done(MachineId, After, Tell),
}

/// All owners.
#[derive(Clone, Default)]
pub(super) struct Owners {
    lineages: Arc<Mutex<HashMap<MachineId, mpsc::UnboundedSender<Message>>>>,
}

impl Owners {
    /// Gives a machine a seat; the first one of a lineage brings its owner to life.
    pub(super) fn seat(&self, lineage: MachineId, id: MachineId, seated: Seated) {
        let mut lineages = self.lineages.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = lineages.entry(lineage).or_insert_with(|| {
            let (sender, messages) = mpsc::unbounded_channel();
            let owner = Owner {
                owners: self.clone(),
                lineage,
                itself: sender.downgrade(),
                seats: HashMap::new(),
            };
            tokio::spawn(owner.run(messages));
            sender
        });
        // An owner ends under this lock, so it is there.
        drop(owner.send(Message::Seat(id, seated)));
    }

    /// Has something done with a machine of a lineage.
    pub(super) fn work(&self, lineage: MachineId, id: MachineId, work: Work) {
        let lineages = self.lineages.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(owner) = lineages.get(&lineage) else {
            drop(lineages);
            refuse(work);
            return;
        };
        drop(owner.send(Message::Work(id, work)));
    }
}

/// A machine's place: empty while something is done with her.
#[derive(Default)]
struct Seat {
    seated: Option<Seated>,
    line: VecDeque<Work>,
}

struct Owner {
    owners: Owners,
    lineage: MachineId,
    itself: mpsc::WeakUnboundedSender<Message>,
    seats: HashMap<MachineId, Seat>,
}

impl Owner {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = messages.recv().await {
            self.hear(message);
            if self.seats.is_empty() && self.leaves(&mut messages) {
                return;
            }
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Seat(id, seated) => {
                let seat = Seat {
                    seated: Some(seated),
                    line: VecDeque::new(),
                };
                self.seats.insert(id, seat);
            }
            Message::Work(id, work) => match self.seats.get_mut(&id) {
                Some(seat) => {
                    seat.line.push_back(work);
                    self.next(id);
                }
                None => refuse(work),
            },
            Message::Done(id, after, tell) => {
                for (daughter, guest) in after.born {
                    self.hear(Message::Seat(daughter, Seated::Awake(guest)));
                }
                match (after.seated, self.seats.get_mut(&id)) {
                    (Some(seated), Some(seat)) => {
                        seat.seated = Some(seated);
                        self.next(id);
                    }
                    _ => self.unseat(id),
                }
                tell();
            }
        }
    }

    /// Begins the next piece of work for a machine that is in her seat.
    fn next(&mut self, id: MachineId) {
        let Some(owner) = self.itself.upgrade() else {
            return;
        };
        let Some(seat) = self.seats.get_mut(&id) else {
            return;
        };
        if seat.seated.is_none() {
            return;
        }
        if let Some(work) = seat.line.pop_front() {
            let seated = seat.seated.take();
            tokio::task::spawn_blocking(move || {
                let (after, tell) = work(seated);
                drop(owner.send(Message::Done(id, after, tell)));
            });
        }
    }

    fn unseat(&mut self, id: MachineId) {
        let line = self.seats.remove(&id).map(|seat| seat.line);
        line.into_iter().flatten().for_each(refuse);
    }

    /// Whether the lineage is over. Nobody can send anything while this is decided.
    fn leaves(&mut self, messages: &mut mpsc::UnboundedReceiver<Message>) -> bool {
        let owners = self.owners.clone();
        let mut lineages = owners
            .lineages
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while let Ok(message) = messages.try_recv() {
            self.hear(message);
        }
        if self.seats.is_empty() {
            lineages.remove(&self.lineage);
        }
        self.seats.is_empty()
    }
}
