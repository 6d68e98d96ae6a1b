//! The clock of deadlines: one tick of the engine's epoch a millisecond, while calls run.
//!
//! Invariant: a call under way is always ticked. With none under way the thread sleeps after a moment, and an idle engine
//! costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::Engine;

const TICK: Duration = Duration::from_millis(1);
/// Ticks that a late thread makes up for: a machine that stood still does not end every call under way.
const MOST_AT_ONCE: u32 = 4;
/// Ticks without a call before it sleeps: under load nobody pays for waking it.
const LINGER: u32 = 100;

#[derive(Default)]
struct Shared {
    calls: AtomicUsize,
    asleep: AtomicBool,
    over: AtomicBool,
}

pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("policy-ticker".to_owned());
        let thread = builder.spawn(move || tick(&engine, &own))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Ticks until the guard is dropped.
    pub(crate) fn watch(&self) -> Watched<'_> {
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        let asleep = &self.shared.asleep;
        // It is asleep seldom, and a load leaves the line with the other threads.
        if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        Watched(self)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

fn tick(engine: &Engine, shared: &Shared) {
    let (mut idle, mut last) = (0, Instant::now());
    while !shared.over.load(Ordering::SeqCst) {
        idle = if shared.calls.load(Ordering::SeqCst) == 0 {
            idle + 1
        } else {
            0
        };
        if idle > LINGER {
            shared.asleep.store(true, Ordering::SeqCst);
            // A call that began in between has found `asleep`, or is found here.
            if shared.calls.load(Ordering::SeqCst) == 0 && !shared.over.load(Ordering::SeqCst) {
                std::thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            (idle, last) = (0, Instant::now());
            continue;
        }
        std::thread::sleep(TICK);
        // A sleep is longer than it was asked to be, and an epoch behind the clock lets calls run longer.
        let passed = u32::try_from(last.elapsed().as_nanos() / TICK.as_nanos());
        let ticks = passed.unwrap_or(u32::MAX).clamp(1, MOST_AT_ONCE);
        for _ in 0..ticks {
            engine.increment_epoch();
        }
        last = match ticks {
            MOST_AT_ONCE => Instant::now(),
            ticks => last + TICK * ticks,
        };
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the policy ticker ended by a panic");
        }
    }
}

/// A call under way.
pub(crate) struct Watched<'a>(&'a Ticker);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.0.shared.calls.fetch_sub(1, Ordering::SeqCst);
    }
}
