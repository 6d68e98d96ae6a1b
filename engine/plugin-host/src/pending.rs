//! An answer that is still to come, for a thread or for a task.
//!
//! Invariant: an answer comes once or never; that it will never come is an answer as well (`None`), so nobody waits for a
//! call that was dropped.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// Waits for an answer: with [`wait`](Self::wait) on a thread, or as a future.
#[derive(Debug)]
pub struct Pending<T>(Arc<Slot<T>>);

/// Gives it. Dropped without, the answer is `None`.
#[derive(Debug)]
pub(crate) struct Reply<T>(Arc<Slot<T>>);

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    come: Condvar,
}

#[derive(Debug)]
struct State<T> {
    answer: Option<T>,
    over: bool,
    waker: Option<Waker>,
}

pub(crate) fn pending<T>() -> (Reply<T>, Pending<T>) {
    let state = Mutex::new(State {
        answer: None,
        over: false,
        waker: None,
    });
    let slot = Arc::new(Slot {
        state,
        come: Condvar::new(),
    });
    (Reply(Arc::clone(&slot)), Pending(slot))
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reply<T> {
    pub(crate) fn send(self, answer: T) {
        self.0.lock().answer = Some(answer);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.over = true;
            state.waker.take()
        };
        self.0.come.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Pending<T> {
    /// Blocks this thread until the answer is there.
    pub fn wait(self) -> Option<T> {
        let state = self.0.lock();
        let mut state = self
            .0
            .come
            .wait_while(state, |state| !state.over)
            .unwrap_or_else(PoisonError::into_inner);
        state.answer.take()
    }
}

impl<T> Future for Pending<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if state.over {
            return Poll::Ready(state.answer.take());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread until it is done, for callers without a runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
