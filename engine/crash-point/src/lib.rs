//! Points at which a test kills the engine, to see that whatever it was doing can be taken up again.
//!
//! Each store commit and each message to a cell, the supervisor or an agent passes one [`crash_point`]:
//!
//! ```text
//!  crash_point("cell: fork", || socket.send(…))
//!       │ before:N kills here         │ after:N kills here
//!       └──────────── the action ─────┘
//! ```
//!
//! A test first runs the engine with `BROOD_CRASH_POINT=count:FILE`, which adds a line for each point it passes, then
//! once with `before:N` and once with `after:N` for every number in that file. `before:N:AREA` numbers only the points of
//! one area, the word before the colon of their names, where how many there are of others depends on time. The program
//! that is to be killed calls [`arm`] with the value of [`VARIABLE`]; no other place reads the environment.
//! Invariant: what is not armed costs one relaxed load a point and changes nothing; a point that is hit ends the process
//! by SIGKILL, so that no destructor, exit handler or buffer gets to run.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

/// The environment variable whose value a program that can be killed gives to [`arm`].
pub const VARIABLE: &str = "BROOD_CRASH_POINT";

static ARMED: AtomicBool = AtomicBool::new(false);
static PASSED: AtomicU64 = AtomicU64::new(0);
static PLAN: OnceLock<Armed> = OnceLock::new();

/// What happens at the points of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashPlan {
    /// A line is added to this file for each point: its number, from 1, and its name.
    Count(PathBuf),
    /// The process is killed before the action of this point.
    Before(Point),
    /// The process is killed after it.
    After(Point),
}

/// Which point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its number, from 1.
    pub number: u64,
    /// The area whose points are numbered; all are if there is none.
    pub area: Option<String>,
}

impl Point {
    fn counts(&self, name: &str) -> bool {
        let of = |area: &str| name.split_once(':').is_some_and(|(word, _)| word == area);
        self.area.as_deref().is_none_or(of)
    }
}

/// The text is not a plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{}' is no crash plan: say count:FILE, before:N, after:N, before:N:AREA or after:N:AREA, N from 1", .0.escape_debug())]
pub struct ParseCrashPlanError(String);

impl FromStr for CrashPlan {
    type Err = ParseCrashPlanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseCrashPlanError(text.to_owned());
        let point = |text: &str| {
            let (number, area) = match text.split_once(':') {
                Some((number, area)) => (number, Some(area.to_owned())),
                None => (text, None),
            };
            let number = number.parse().ok().filter(|number| *number > 0)?;
            let is_said = area.as_ref().is_none_or(|area| !area.is_empty());
            is_said.then_some(Point { number, area })
        };
        match text.split_once(':').ok_or_else(wrong)? {
            ("count", path) if !path.is_empty() => Ok(Self::Count(path.into())),
            ("before", n) => point(n).map(Self::Before).ok_or_else(wrong),
            ("after", n) => point(n).map(Self::After).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// The points of this process cannot be armed.
#[derive(Debug, thiserror::Error)]
pub enum ArmError {
    /// The file of the count cannot be written.
    #[error("cannot count crash points in {}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It was done before.
    #[error("the crash points of this process are armed already")]
    Twice,
}

enum Armed {
    Count(File),
    Before(Point),
    After(Point),
}

/// Puts a plan into force, once for the process.
///
/// # Errors
/// The file cannot be opened, or there is a plan.
pub fn arm(plan: CrashPlan) -> Result<(), ArmError> {
    let armed = match plan {
        CrashPlan::Count(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map(Armed::Count)
            .map_err(|source| ArmError::File { path, source })?,
        CrashPlan::Before(point) => Armed::Before(point),
        CrashPlan::After(point) => Armed::After(point),
    };
    PLAN.set(armed).map_err(|_| ArmError::Twice)?;
    ARMED.store(true, Ordering::Release);
    Ok(())
}

/// Does `action`, the point called `name`; see the crate's own words.
pub fn crash_point<T>(name: &str, action: impl FnOnce() -> T) -> T {
    if !ARMED.load(Ordering::Relaxed) {
        return action();
    }
    let plan = PLAN.get();
    if let Some(Armed::Before(point) | Armed::After(point)) = plan
        && !point.counts(name)
    {
        return action();
    }
    let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
    match plan {
        Some(Armed::Count(file)) => {
            // One write a line: lines of several threads do not mix. Whoever counts sees a number that is missing.
            let mut file = file;
            file.write_all(format!("{number} {name}\n").as_bytes()).ok();
        }
        Some(Armed::Before(point)) if point.number == number => die(),
        _ => {}
    }
    let done = action();
    if matches!(plan, Some(Armed::After(point)) if point.number == number) {
        die();
    }
    done
}

fn die() -> ! {
    loop {
        // It does not return; if the kernel refused there would be nothing better than to ask again.
        kill_process(getpid(), Signal::KILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    use super::*;

    #[test]
    fn a_plan_is_read_and_what_is_none_is_refused() {
        assert_eq!("count:/a".parse(), Ok(CrashPlan::Count("/a".into())));
        let point = |number, area: Option<&str>| Point {
            number,
            area: area.map(str::to_owned),
        };
        assert_eq!("before:1".parse(), Ok(CrashPlan::Before(point(1, None))));
        assert_eq!("after:20".parse(), Ok(CrashPlan::After(point(20, None))));
        let of_agents = CrashPlan::Before(point(3, Some("agent")));
        assert_eq!("before:3:agent".parse(), Ok(of_agents));
        for text in [
            "",
            "before",
            "before:0",
            "after:x",
            "count:",
            "never:1",
            "after:1:",
            "before::agent",
        ] {
            assert!(text.parse::<CrashPlan>().is_err(), "{text}");
        }
    }

    const STEPS: &str = "BROOD_TEST_STEPS";

    /// Not a test by itself: the process that the next test starts and kills.
    #[test]
    fn a_process_of_three_points() {
        let Some(path) = std::env::var_os(STEPS) else {
            return;
        };
        let plan = std::env::var(VARIABLE).expect("a plan");
        arm(plan.parse().expect("a plan")).expect("armed");
        let mut done = File::create(path).expect("a file");
        for step in ["a: one", "b: two", "a: three"] {
            let word = step.rsplit(' ').next().expect("a word");
            crash_point(step, || done.write_all(word.as_bytes()).expect("written"));
        }
    }

    fn run(plan: &str, steps: &std::path::Path) -> (ExitStatus, String) {
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "tests::a_process_of_three_points"])
            .env(VARIABLE, plan)
            .env(STEPS, steps)
            .status()
            .expect("it starts");
        (status, std::fs::read_to_string(steps).unwrap_or_default())
    }

    #[test]
    fn points_are_counted_and_each_kills_before_or_after_its_action() {
        let name = format!("brood-crash-point-{}", std::process::id());
        let steps = std::env::temp_dir().join(name);
        let count = steps.with_extension("count");
        let (status, done) = run(&format!("count:{}", count.display()), &steps);
        assert!(status.success());
        assert_eq!(done, "onetwothree");
        let counted = std::fs::read_to_string(&count).expect("counted");
        assert_eq!(counted, "1 a: one\n2 b: two\n3 a: three\n");
        for (plan, left) in [
            ("before:1", ""),
            ("after:1", "one"),
            ("before:3", "onetwo"),
            ("after:3", "onetwothree"),
            ("before:2:a", "onetwo"),
            ("after:1:b", "onetwo"),
        ] {
            let (status, done) = run(plan, &steps);
            assert_eq!((status.signal(), done.as_str()), (Some(9), left), "{plan}");
        }
        for plan in ["before:4", "before:2:b", "after:1:c"] {
            assert!(run(plan, &steps).0.success(), "{plan}: no such point");
        }
        for file in [steps, count] {
            std::fs::remove_file(file).expect("removed");
        }
    }
}
