//! The one thread that writes.
//!
//! ```text
//!  queue: a b c d e ─► BEGIN  a  b  (c fails: undone)  d  COMMIT ─► answers to a, b, c, d    next turn: e …
//! ```
//!
//! Invariant: no answer before its commit, and before that is on the disk where one job of the turn wants it to be. A job
//! that fails is undone alone; a commit that fails is nobody's success.
//! The queue has no bound of its own: who lets callers in bounds how many of them there are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use brood_crash_point::crash_point;
use rusqlite::{Connection, Params};
use tokio::sync::{oneshot, watch};

use crate::{Read, StoreError, StoreMetrics};

/// The most jobs of one commit.
const TURN: usize = 256;

/// What a commit has to outlive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outlives {
    /// This process.
    Process,
    /// The host's power as well.
    Power,
}

impl Outlives {
    /// sqlite.org, "PRAGMA synchronous": in WAL mode NORMAL writes without waiting for the disk, which the next commit
    /// that waits makes up for.
    const fn pragma(self) -> &'static str {
        match self {
            Self::Process => "PRAGMA synchronous = NORMAL",
            Self::Power => "PRAGMA synchronous = FULL",
        }
    }
}

/// What a job writes with. It reads as well, and sees what it wrote.
pub struct Write<'a> {
    pub(crate) read: Read<'a>,
    pub(crate) last_event: &'a mut i64,
}

impl Write<'_> {
    /// Runs one statement. After an error that ended the transaction nothing is written any more: it would be kept
    /// without the rest of its job.
    pub(crate) fn execute(&self, sql: &str, values: impl Params) -> Result<usize, StoreError> {
        if self.connection.is_autocommit() {
            return Err(StoreError::Full);
        }
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.execute(values)?)
    }
}

impl<'a> std::ops::Deref for Write<'a> {
    type Target = Read<'a>;

    fn deref(&self) -> &Self::Target {
        &self.read
    }
}

/// How the commit of a turn went, told to each of its jobs.
type Tell = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// A job in its turn, or why it has none: whether what it wrote stays, and who waits for the commit.
type Job = Box<dyn FnOnce(Result<&mut Write<'_>, StoreError>) -> (Fate, Tell) + Send>;

/// Whom to tell what.
type Told = (Tell, Result<(), StoreError>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Keep,
    Undo,
}

/// An answer that comes with the commit: a future, or [`Pending::wait`] for a thread that may stand still.
#[must_use = "whether it was kept is in the answer"]
pub struct Pending<T, E> {
    answer: oneshot::Receiver<Result<T, E>>,
}

impl<T, E: From<StoreError>> Pending<T, E> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Those of the job and of the database.
    pub fn wait(self) -> Result<T, E> {
        let closed = |_| Err(StoreError::Closed.into());
        self.answer.blocking_recv().unwrap_or_else(closed)
    }
}

impl<T, E: From<StoreError>> Future for Pending<T, E> {
    type Output = Result<T, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(StoreError::Closed.into())))
    }
}

pub(crate) struct Writer {
    queue: Option<mpsc::Sender<(Outlives, Job)>>,
    thread: Option<JoinHandle<()>>,
    last_event: watch::Receiver<i64>,
    metrics: StoreMetrics,
}

impl Writer {
    pub(crate) fn start(connection: Connection) -> Result<Self, StoreError> {
        let last: i64 = connection.query_row(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)",
            [],
            |row| row.get(0),
        )?;
        let (seen, last_event) = watch::channel(last);
        let (queue, jobs) = mpsc::channel();
        let metrics = StoreMetrics::new();
        let counted = metrics.clone();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || write_all(connection, &jobs, &seen, &counted))
            .map_err(|error| StoreError::Disk(error.to_string()))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
            last_event,
            metrics,
        })
    }

    pub(crate) fn last_event(&self) -> watch::Receiver<i64> {
        self.last_event.clone()
    }

    pub(crate) const fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    pub(crate) fn write<T, E>(
        &self,
        outlives: Outlives,
        job: impl FnOnce(&mut Write<'_>) -> Result<T, E> + Send + 'static,
    ) -> Pending<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (tell, answer) = oneshot::channel::<Result<T, E>>();
        let job: Job = Box::new(move |write| {
            let done = match write {
                // A panic is that job's alone: the others of its turn are kept.
                Ok(write) => catch_unwind(AssertUnwindSafe(|| job(write)))
                    .unwrap_or_else(|_| Err(StoreError::Closed.into())),
                Err(error) => Err(error.into()),
            };
            let fate = if done.is_ok() { Fate::Keep } else { Fate::Undo };
            let tell: Tell = Box::new(move |committed| {
                let answer = done.and_then(|value| committed.map(|()| value).map_err(E::from));
                // Who no longer waits does not want to know.
                drop(tell.send(answer));
            });
            (fate, tell)
        });
        // Without a writer the job is dropped with its answer, which says so.
        if let Some(queue) = &self.queue {
            drop(queue.send((outlives, job)));
        }
        Pending { answer }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It panics only where a job's answer does, and then there is nobody to tell.
            drop(thread.join());
        }
    }
}

fn write_all(
    connection: Connection,
    jobs: &mpsc::Receiver<(Outlives, Job)>,
    seen: &watch::Sender<i64>,
    metrics: &StoreMetrics,
) {
    let mut level = Outlives::Power;
    while let Ok(first) = jobs.recv() {
        let waiting: Vec<_> = std::iter::once(first)
            .chain(jobs.try_iter().take(TURN - 1))
            .collect();
        let wanted = waiting.iter().map(|(outlives, _)| *outlives).max();
        let wanted = wanted.unwrap_or(Outlives::Power);
        // Where it cannot be lowered a commit waits for the disk, and it is raised again or nothing is written.
        if wanted != level {
            match connection.execute_batch(wanted.pragma()) {
                Ok(()) => level = wanted,
                Err(error) if wanted == Outlives::Power => {
                    let why = StoreError::from(error);
                    for (_, job) in waiting {
                        let (_, tell) = job(Err(why.clone()));
                        tell(Err(why.clone()));
                    }
                    continue;
                }
                Err(_) => {}
            }
        }
        let mut turn = Turn::new(&connection, metrics, *seen.borrow());
        waiting.into_iter().for_each(|(_, job)| turn.run(job));
        let (told, last) = turn.commit();
        seen.send_if_modified(|seen| std::mem::replace(seen, last) != last);
        told.into_iter().for_each(|(tell, kept)| tell(kept));
    }
    // What stays in the log is durable all the same.
    drop(connection.close());
}

/// One transaction and the jobs in it.
struct Turn<'a> {
    connection: &'a Connection,
    metrics: &'a StoreMetrics,
    /// Jobs whose fate is the commit's.
    waiting: Vec<Tell>,
    /// Jobs whose fate is known.
    told: Vec<Told>,
    /// The last event that is committed, and the last one of this turn.
    committed: i64,
    last: i64,
}

impl<'a> Turn<'a> {
    const fn new(connection: &'a Connection, metrics: &'a StoreMetrics, committed: i64) -> Self {
        Self {
            connection,
            metrics,
            waiting: Vec::new(),
            told: Vec::new(),
            committed,
            last: committed,
        }
    }

    fn run(&mut self, job: Job) {
        let event_before = self.last;
        let begun = self.begin();
        let (fate, tell) = match begun {
            Ok(()) => job(Ok(&mut Write {
                read: Read {
                    connection: self.connection,
                },
                last_event: &mut self.last,
            })),
            Err(error) => job(Err(error)),
        };
        self.waiting.push(tell);
        // A full disk or a failed write ends the transaction for all (sqlite.org, "Response To Errors Within A
        // Transaction"); the jobs that follow get another one.
        if self.connection.is_autocommit() {
            return self.lose(&StoreError::Full);
        }
        let ended = match fate {
            Fate::Keep => self.connection.execute_batch("RELEASE job"),
            Fate::Undo => {
                self.last = event_before;
                self.metrics.undone.inc();
                let undo = "ROLLBACK TO job; RELEASE job";
                self.connection.execute_batch(undo)
            }
        };
        if let Err(error) = ended {
            self.lose(&error.into());
        }
    }

    fn begin(&self) -> Result<(), StoreError> {
        let begin = match self.connection.is_autocommit() {
            true => "BEGIN IMMEDIATE; SAVEPOINT job",
            false => "SAVEPOINT job",
        };
        Ok(self.connection.execute_batch(begin)?)
    }

    /// Nothing of the turn until now is kept.
    fn lose(&mut self, why: &StoreError) {
        if !self.connection.is_autocommit() {
            // If this fails the connection is of no use, and every later turn finds that out and says so.
            drop(self.connection.execute_batch("ROLLBACK"));
        }
        self.last = self.committed;
        self.metrics.failed.inc();
        let lost = self.waiting.drain(..);
        self.told.extend(lost.map(|tell| (tell, Err(why.clone()))));
    }

    /// Commits, and gives out whom to tell what, and the last event that is committed.
    fn commit(mut self) -> (Vec<Told>, i64) {
        if !self.connection.is_autocommit() {
            let begun = Instant::now();
            let commit = || self.connection.execute_batch("COMMIT");
            match crash_point("store: commit", commit) {
                Ok(()) => {
                    self.metrics.commit.observe(begun.elapsed().as_secs_f64());
                    self.metrics.jobs.observe(self.waiting.len() as f64);
                    let kept = self.waiting.drain(..);
                    self.told.extend(kept.map(|tell| (tell, Ok(()))));
                }
                Err(error) => self.lose(&error.into()),
            }
        }
        (self.told, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the connection waits for in a turn with this job (sqlite.org: 1 is NORMAL, 2 is FULL).
    fn level(write: &mut Write<'_>) -> Result<i64, StoreError> {
        Ok(write
            .connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))?)
    }

    #[test]
    fn a_commit_waits_for_the_disk_where_one_of_its_jobs_wants_it_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let connection = Connection::open(directory.path().join("a.db")).expect("opens");
        // The writer looks for the last number of an event, which is there from the first such table on.
        connection
            .execute_batch("CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT) STRICT")
            .expect("a table");
        let writer = Writer::start(connection).expect("starts");
        let ask = |outlives| {
            writer
                .write::<_, StoreError>(outlives, level)
                .wait()
                .expect("an answer")
        };
        assert_eq!(ask(Outlives::Process), 1);
        assert_eq!(ask(Outlives::Power), 2);
        assert_eq!(ask(Outlives::Process), 1);
        // Whoever shares a turn with one that has to outlive the power outlives it as well.
        let (hold, held) = mpsc::channel::<()>();
        let busy = writer.write::<_, StoreError>(Outlives::Process, move |_| {
            held.recv().ok();
            Ok(())
        });
        let together = [Outlives::Process, Outlives::Power]
            .map(|outlives| writer.write::<_, StoreError>(outlives, level));
        drop(hold);
        busy.wait().expect("an answer");
        assert_eq!(
            together.map(|answer| answer.wait().expect("an answer")),
            [2, 2]
        );
    }
}
