//! Policy threads: where components run, and nothing else does.
//!
//! Invariant: a job that panics takes neither its thread nor its successors with it. Jobs that still wait when the threads
//! end are dropped, which their callers see.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

/// Where jobs wait for a thread.
#[derive(Default)]
pub(crate) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

impl Queue {
    pub(crate) fn push(&self, job: Job) {
        let refused = {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if jobs.closed {
                Some(job)
            } else {
                jobs.waiting.push_back(job);
                None
            }
        };
        // Dropped outside of the lock: dropping a job answers its caller.
        drop(refused);
        self.more.notify_one();
    }

    fn next(&self) -> Option<Job> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut jobs = self
            .more
            .wait_while(jobs, |jobs| jobs.waiting.is_empty() && !jobs.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if jobs.closed {
            None
        } else {
            jobs.waiting.pop_front()
        }
    }

    fn close(&self) {
        let dropped = {
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.closed = true;
            std::mem::take(&mut jobs.waiting)
        };
        drop(dropped);
        self.more.notify_all();
    }
}

/// Threads that take jobs off one queue.
pub(crate) struct Threads {
    queue: Arc<Queue>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn start(
        name: &str,
        count: usize,
        begin: impl Fn() + Clone + Send + 'static,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let mut threads = Self {
            queue: Arc::clone(&queue),
            handles: Vec::new(),
        };
        for index in 0..count {
            let (queue, begin) = (Arc::clone(&queue), begin.clone());
            let builder = std::thread::Builder::new().name(format!("{name}-{index}"));
            let handle = builder.stack_size(4 << 20).spawn(move || {
                begin();
                while let Some(job) = queue.next() {
                    if catch_unwind(AssertUnwindSafe(job)).is_err() {
                        eprintln!("a policy call panicked; its caller sees a failed call");
                    }
                }
            })?;
            threads.handles.push(handle);
        }
        Ok(threads)
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.close();
        for handle in self.handles.drain(..) {
            // The last owner of the host can be a job; a thread cannot wait for itself.
            if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
                eprintln!("a policy thread ended by a panic");
            }
        }
    }
}
