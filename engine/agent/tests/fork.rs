//! The fork protocol against a real freezer. A daughter is played by a new connection: to the agent she differs from
//! her mother in nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use brood_agent_proto::blob::EnvMap;
use brood_agent_proto::client::AttachEvent;
use brood_agent_proto::errno::Errno;
use brood_agent_proto::exec::{AttachSpec, ExecId, ExecSpec, ExecState, From};
use brood_agent_proto::fork::{SshHostKeys, StampCommand, StampFile};
use brood_agent_proto::{
    AgentError, BootId, Client, ClientError, ForkRefusal, ForkToken, Reply, Request, Seed,
    StampSpec, StampStep, StampTicket, Stamped, frame, hello,
};
use brood_units::MachineId;
use common::{Guest, TIMEOUT, has_event, wait_for_event};

const TOKEN: ForkToken = ForkToken([0x5a; 16]);

fn sh(script: &str) -> ExecSpec {
    ExecSpec::new(["sh", "-c", script])
}

fn spec(index: u8) -> StampSpec {
    StampSpec {
        machine_id: MachineId::from_bytes([index; 16]),
        mother: Some(MachineId::from_bytes([0xee; 16])),
        generation: 3,
        fork_index: u32::from(index),
        hostname: format!("daughter-{index}"),
        wall_clock_ns: 1_800_000_000_000_000_000,
        host_monotonic_ns: 42,
        seed: Seed::new([index; 64]),
        boot_id: BootId([index; 16]),
        env: EnvMap::new(),
        files: Vec::new(),
        ssh_host_keys: SshHostKeys::Regenerate,
        commands: Vec::new(),
        hook_timeout_ms: 10_000,
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> AgentError {
    match result {
        Err(ClientError::Agent(error)) => error,
        other => panic!("not refused by the agent: {other:?}"),
    }
}

fn frozen(guest: &Guest) -> bool {
    has_event(&guest.cgroup.0.join("workload"), "frozen 1")
}

/// A program that counts for ever; returns once it has begun.
fn counter(guest: &Guest) -> ExecId {
    let mut client = guest.client();
    let exec = client.exec(&sh("while :; do echo tick; done")).unwrap();
    let mut attachment = client.attach(&AttachSpec::all(exec)).unwrap();
    assert!(matches!(
        attachment.next(TIMEOUT).unwrap(),
        Some(AttachEvent::Output(_))
    ));
    exec
}

/// Whether the session makes output, waiting for it.
fn runs(guest: &Guest, exec: ExecId, wait: Duration) -> bool {
    let mut client = guest.client();
    let now = AttachSpec {
        stdout: From::Now,
        ..AttachSpec::all(exec)
    };
    let mut attachment = client.attach(&now).unwrap();
    attachment.next(wait).unwrap().is_some()
}

fn hook(guest: &Guest, name: &str, script: &str) {
    let directory = guest.root().join("etc/brood/fork.d");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn stamp(client: Client, spec: &StampSpec) -> Result<Stamped, ClientError> {
    client.stamp(&StampTicket::from_token(TOKEN), spec)
}

#[test]
fn a_quiesced_workload_stands_still_and_runs_on_after_the_thaw() {
    let Some(guest) = Guest::start() else { return };
    let exec = counter(&guest);
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    assert!(quiesced.report().took_ns > 0 && quiesced.report().cgroups == 1);
    assert!(frozen(&guest));
    // What was in the pipe is taken; then nothing comes any more.
    while runs(&guest, exec, Duration::from_millis(20)) {}
    let end = guest.client().exec_status(exec).unwrap().stdout_end;
    assert!(!runs(&guest, exec, Duration::from_millis(50)));
    assert_eq!(guest.client().exec_status(exec).unwrap().stdout_end, end);
    assert_eq!(
        refusal(guest.client().exec(&sh("true"))),
        AgentError::WorkloadQuiesced
    );
    let mut client = quiesced.thaw().unwrap();
    assert!(runs(&guest, exec, TIMEOUT));
    assert!(client.exec(&sh("true")).is_ok());
}

#[test]
fn user_processes_in_the_root_are_moved_and_what_the_guest_froze_stays_frozen() {
    let Some(guest) = Guest::start() else { return };
    let root = guest.cgroup.0.clone();
    let (scope, paused) = (root.join("init.scope"), root.join("paused"));
    fs::create_dir_all(scope.join("deep")).unwrap();
    fs::create_dir(&paused).unwrap();
    let spawn = |cgroup: &std::path::Path| {
        let child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    };
    let mut children = [spawn(&root), spawn(&scope.join("deep")), spawn(&paused)];
    fs::write(paused.join("cgroup.freeze"), "1").unwrap();
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    assert_eq!(fs::read_to_string(root.join("cgroup.procs")).unwrap(), "");
    let moved = fs::read_to_string(root.join("workload/cgroup.procs")).unwrap();
    assert_eq!(moved.trim(), children[0].id().to_string());
    for cgroup in [root.join("workload"), scope.join("deep"), paused.clone()] {
        assert!(has_event(&cgroup, "frozen 1"), "{}", cgroup.display());
    }
    quiesced.thaw().unwrap();
    wait_for_event(&root.join("workload"), "frozen 0");
    wait_for_event(&scope.join("deep"), "frozen 0");
    assert!(has_event(&paused, "frozen 1"));
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_cgroup_that_goes_while_it_is_frozen_does_not_hinder_the_thaw() {
    let Some(guest) = Guest::start() else { return };
    let exec = counter(&guest);
    let passing = guest.cgroup.0.join("passing");
    fs::create_dir(&passing).unwrap();
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    assert_eq!(quiesced.report().cgroups, 2);
    fs::remove_dir(&passing).unwrap();
    quiesced.thaw().unwrap();
    assert!(runs(&guest, exec, TIMEOUT));
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    assert_eq!(quiesced.report().cgroups, 1, "it is forgotten");
    quiesced.thaw().unwrap();
}

/// A process that the freezer does not reach: its read(2) faults on a page that a userfaultfd(2) never fills.
#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a child between fork and exit is all system calls"
)]
mod stuck {
    use std::ptr;

    /// Starts it in `cgroup` and returns its pid once it is about to get stuck. The pipe it gets stuck on is its own: the
    /// kernel holds a pipe's lock while it copies.
    pub(super) fn start(cgroup: &std::path::Path) -> libc::pid_t {
        let procs = std::ffi::CString::new(cgroup.join("cgroup.procs").to_str().unwrap()).unwrap();
        let mut pipe = [0; 2];
        // SAFETY: `pipe` has room for two descriptors.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        // SAFETY: the child makes only plain system calls before it ends.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            child(&procs, pipe);
        }
        let mut byte = [0_u8];
        // SAFETY: `byte` has room for one byte.
        let read = unsafe { libc::read(pipe[0], byte.as_mut_ptr().cast(), 1) };
        assert_eq!(read, 1);
        assert_eq!(byte[0], b'1', "no userfaultfd for kernel faults here");
        pid
    }

    fn child(procs: &std::ffi::CStr, pipe: [i32; 2]) -> ! {
        /// `struct uffdio_register`, include/uapi/linux/userfaultfd.h.
        #[repr(C)]
        struct Register {
            start: u64,
            len: u64,
            mode: u64,
            ioctls: u64,
        }
        let mut api: [u64; 3] = [0xaa, 0, 0];
        // SAFETY: a fresh mapping of one page.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                4096,
                3,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        let mut register = Register {
            start: page.addr() as u64,
            len: 4096,
            mode: 1,
            ioctls: 0,
        };
        // SAFETY: open(2), write(2) and ioctl(2) with pointers to live values of the sizes they take.
        let ready = unsafe {
            let fd = libc::open(procs.as_ptr(), libc::O_WRONLY);
            let uffd = i32::try_from(libc::syscall(libc::SYS_userfaultfd, 0)).unwrap_or(-1);
            libc::write(fd, c"0".as_ptr().cast(), 1) == 1
                && libc::ioctl(uffd, 0xc018_aa3f, api.as_mut_ptr()) == 0
                && libc::ioctl(uffd, 0xc020_aa00, &raw mut register) == 0
        };
        let word = if ready { c"1" } else { c"0" };
        let mut own = [0; 2];
        // SAFETY: single bytes of `word`, room for two descriptors; the read faults on the registered page.
        unsafe {
            libc::pipe(own.as_mut_ptr());
            libc::write(own[1], word.as_ptr().cast(), 1);
            libc::write(pipe[1], word.as_ptr().cast(), 1);
            libc::read(own[0], page, 1);
            libc::_exit(0)
        }
    }
}

#[test]
fn a_process_that_cannot_freeze_refuses_the_quiesce_and_everything_runs_on() {
    let Some(guest) = Guest::start() else { return };
    let exec = counter(&guest);
    let beside = guest.cgroup.0.join("beside");
    fs::create_dir(&beside).unwrap();
    let pid = stuck::start(&beside);
    let wanted = u32::try_from(pid).unwrap();
    // It says that it is ready just before it gets stuck.
    let blockers = loop {
        match guest.client().quiesce(TOKEN, Duration::from_millis(100)) {
            Ok(quiesced) => drop(quiesced.thaw().unwrap()),
            Err(ClientError::Agent(AgentError::QuiesceRefused {
                blockers,
                waited_ms,
            })) => {
                assert!(waited_ms >= 100);
                break blockers;
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    assert_eq!(
        blockers
            .iter()
            .map(|blocker| blocker.pid)
            .collect::<Vec<_>>(),
        [wanted]
    );
    assert!(!blockers[0].comm.is_empty());
    for cgroup in [beside.clone(), guest.cgroup.0.join("workload")] {
        assert_eq!(
            fs::read_to_string(cgroup.join("cgroup.freeze")).unwrap(),
            "0\n"
        );
    }
    assert!(runs(&guest, exec, TIMEOUT));
    assert!(guest.client().exec(&sh("true")).is_ok());
    // SAFETY: the child this test made.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let mut status = 0;
    // SAFETY: `status` is an int.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
}

#[test]
fn only_the_quiescing_connection_with_its_token_thaws_the_mother() {
    let Some(guest) = Guest::start() else { return };
    let exec = counter(&guest);
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    // The types do not allow these; a hand-made conversation does.
    let mut raw = Raw::connect(&guest);
    assert_eq!(
        raw.refused(&Request::Thaw { token: TOKEN }),
        ForkRefusal::WrongConnection
    );
    let again = Request::Quiesce {
        token: TOKEN,
        timeout_ms: 1,
    };
    assert_eq!(raw.refused(&again), ForkRefusal::AlreadyQuiesced);
    assert_eq!(raw.refused(&Request::Confirm), ForkRefusal::NotStamped);
    assert!(frozen(&guest));
    quiesced.thaw().unwrap();
    assert_eq!(
        raw.refused(&Request::Thaw { token: TOKEN }),
        ForkRefusal::NotQuiesced
    );
    // Now with the raw connection as the quiescing one.
    let quiesce = Request::Quiesce {
        token: TOKEN,
        timeout_ms: 10_000,
    };
    assert!(matches!(raw.ask(&quiesce), Reply::Quiesced(_)));
    let stale = Request::Thaw {
        token: ForkToken([1; 16]),
    };
    assert_eq!(raw.refused(&stale), ForkRefusal::WrongToken);
    let own = Request::Stamp {
        token: TOKEN,
        spec: Box::new(spec(1)),
    };
    assert_eq!(raw.refused(&own), ForkRefusal::WrongConnection);
    assert!(frozen(&guest));
    assert_eq!(raw.ask(&Request::Thaw { token: TOKEN }), Reply::Done);
    assert!(runs(&guest, exec, TIMEOUT));
}

/// A conversation without the client's types.
struct Raw(std::os::unix::net::UnixStream);

impl Raw {
    fn connect(guest: &Guest) -> Self {
        let mut stream = guest.stream();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        hello::write(&mut stream, hello::VERSION).unwrap();
        assert_eq!(hello::read(&mut stream).unwrap(), hello::VERSION);
        Self(stream)
    }

    fn ask(&mut self, request: &Request) -> Reply {
        frame::write_frame(&mut self.0, request).unwrap();
        frame::read_frame(&mut self.0).unwrap()
    }

    fn refused(&mut self, request: &Request) -> ForkRefusal {
        match self.ask(request) {
            Reply::Error(AgentError::Fork(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[test]
fn losing_the_quiescing_connection_thaws_nothing_and_a_stamp_goes_on_from_there() {
    let Some(guest) = Guest::start() else { return };
    let exec = counter(&guest);
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    while runs(&guest, exec, Duration::from_millis(20)) {}
    assert!(frozen(&guest));
    let wrong = StampTicket::from_token(ForkToken([9; 16]));
    let stale = refusal(guest.client().stamp(&wrong, &spec(1)));
    assert_eq!(stale, AgentError::Fork(ForkRefusal::WrongToken));
    let stamped = stamp(guest.client(), &spec(1)).unwrap();
    assert!(frozen(&guest));
    let confirmed = stamped.confirm().unwrap();
    assert!(frozen(&guest));
    confirmed.thaw().unwrap();
    assert!(runs(&guest, exec, TIMEOUT));
}

#[test]
fn a_stamp_applies_the_whole_identity() {
    let Some(guest) = Guest::start() else { return };
    let ticket = guest.client().quiesce(TOKEN, TIMEOUT).unwrap().ticket();
    hook(
        &guest,
        "10-who",
        "echo $BROOD_HOSTNAME $BROOD_FORK_INDEX $SECRET > $(dirname $0)/../said",
    );
    let mut spec = spec(1);
    spec.env.insert("SECRET", "it's\nhere").unwrap();
    spec.files.push(StampFile {
        path: "/etc/app/token".into(),
        mode: 0o600,
        bytes: b"t".to_vec().into(),
    });
    let mark = guest.directory.path().join("mark");
    let mark = mark.to_string_lossy().into_owned();
    spec.commands.push(StampCommand {
        argv: vec!["touch".into(), mark.clone()],
    });
    let mut stamped = guest.client().stamp(&ticket, &spec).unwrap();
    let report = stamped.report().clone();
    let steps: Vec<StampStep> = report.steps.iter().map(|step| step.step).collect();
    assert_eq!(
        (steps.len(), steps[1], steps[2]),
        (13, StampStep::Entropy, StampStep::Clock)
    );
    assert_eq!(
        (report.clock_after_ns, report.host_monotonic_ns),
        (spec.wall_clock_ns, 42)
    );
    let clocks = stamped.client().step_realtime(-5).unwrap();
    assert_eq!(clocks.realtime_ns, spec.wall_clock_ns - 5);
    let confirmed = stamped.confirm().unwrap();
    assert_ne!(confirmed.report().random, [0; 32]);
    assert_eq!(confirmed.report().realtime_ns, spec.wall_clock_ns - 5);
    let mut client = confirmed.thaw().unwrap();

    let recorded = guest.system.0.lock().unwrap();
    assert_eq!(
        recorded.calls,
        [
            "add_entropy",
            "set_realtime",
            "set_hostname",
            "show_at",
            "step_realtime"
        ]
    );
    assert_eq!(recorded.seeds, [[1; 64]]);
    drop(recorded);
    assert_eq!(guest.text("/etc/hostname"), "daughter-1\n");
    assert_eq!(
        guest.text("/etc/machine-id"),
        format!("{}\n", spec.machine_id)
    );
    assert_eq!(
        guest.text("/run/brood/boot_id"),
        "01010101-0101-0101-0101-010101010101\n"
    );
    assert_eq!(guest.text("/etc/app/token"), "t");
    assert_eq!(guest.text("/etc/brood/said"), "daughter-1 1 it's here\n");
    assert!(fs::exists(mark).unwrap());
    let identity: serde_json::Value =
        serde_json::from_str(&guest.text("/run/brood/identity.json")).unwrap();
    assert_eq!(identity["mother"], "ee".repeat(16));
    assert_eq!(
        (
            identity["generation"].as_u64(),
            identity["fork_index"].as_u64()
        ),
        (Some(3), Some(1))
    );
    let env = guest.root().join("run/brood/env");
    assert_eq!(fs::metadata(env).unwrap().mode() & 0o777, 0o600);
    let ran = client
        .run(&sh("printf %s \"$SECRET\""), TIMEOUT, 99)
        .unwrap();
    assert_eq!(ran.stdout, b"it's\nhere");
    assert!(!guest.cgroup.0.join("brood-stamp-1").exists());
}

#[test]
fn a_deeper_fork_rewrites_the_same_files_and_keeps_the_mothers_environment() {
    let Some(guest) = Guest::start() else { return };
    let mut inodes = Vec::new();
    for index in 1..=3_u8 {
        drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
        let mut spec = spec(index);
        spec.env
            .insert(format!("GENERATION_{index}"), "yes")
            .unwrap();
        let stamped = stamp(guest.client(), &spec).unwrap();
        stamped.confirm().unwrap().thaw().unwrap();
        let inode = |path| fs::metadata(guest.root().join(path)).unwrap().ino();
        inodes.push((inode("run/brood/boot_id"), inode("run/brood/generation")));
        let counter = fs::read(guest.root().join("run/brood/generation")).unwrap();
        assert_eq!(counter, u64::from(index).to_le_bytes());
    }
    assert!(inodes.iter().all(|pair| *pair == inodes[0]));
    let ran = guest
        .client()
        .run(&sh("env | grep -c ^GENERATION_"), TIMEOUT, 99)
        .unwrap();
    assert_eq!(ran.stdout, b"3\n");
}

#[test]
fn thaw_of_a_daughter_needs_stamp_confirm_and_her_own_id() {
    let Some(guest) = Guest::start() else { return };
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    let mut raw = Raw::connect(&guest);
    let mine = Request::ThawStamped {
        machine_id: spec(1).machine_id,
    };
    assert_eq!(raw.refused(&mine), ForkRefusal::NotStamped);
    let request = Request::Stamp {
        token: TOKEN,
        spec: Box::new(spec(1)),
    };
    assert!(matches!(raw.ask(&request), Reply::Stamped(_)));
    // The mother's queued thaw reaches a stamped daughter.
    let late = refusal(quiesced.thaw());
    assert_eq!(late, AgentError::Fork(ForkRefusal::AlreadyStamped));
    assert_eq!(raw.refused(&mine), ForkRefusal::NotConfirmed);
    assert!(matches!(raw.ask(&Request::Confirm), Reply::Confirmed(_)));
    let sister = Request::ThawStamped {
        machine_id: spec(2).machine_id,
    };
    assert_eq!(raw.refused(&sister), ForkRefusal::WrongMachine);
    assert_eq!(
        Raw::connect(&guest).refused(&mine),
        ForkRefusal::WrongConnection
    );
    assert!(frozen(&guest));
    assert_eq!(raw.ask(&mine), Reply::Done);
    wait_for_event(&guest.cgroup.0.join("workload"), "frozen 0");
}

#[test]
fn a_daughter_with_another_identity_than_stamped_is_not_confirmed() {
    let Some(guest) = Guest::start() else { return };
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    let stamped = stamp(guest.client(), &spec(1)).unwrap();
    guest.system.0.lock().unwrap().hostname = "somebody".to_owned();
    let error = stamped.confirm().unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Identity {
                field: "hostname",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(frozen(&guest));
}

/// The stamp fails at `step`, and nothing thaws that machine any more.
fn fails_for_good(guest: &Guest, spec: &StampSpec, wanted: (StampStep, i32)) -> String {
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    let AgentError::StampFailed {
        step,
        errno,
        detail,
    } = refusal(stamp(guest.client(), spec))
    else {
        panic!("not a failed stamp");
    };
    assert_eq!((step, errno), (wanted.0, Errno(wanted.1)), "{detail}");
    let again = refusal(stamp(guest.client(), &self::spec(1)));
    assert_eq!(again, AgentError::Fork(ForkRefusal::StampFailed));
    assert!(frozen(guest));
    detail
}

#[test]
fn a_hook_that_fails_fails_the_stamp_with_its_last_words() {
    let Some(guest) = Guest::start() else { return };
    hook(&guest, "10-ok", "exit 0");
    hook(&guest, "20-bad", "echo no database >&2; exit 4");
    let detail = fails_for_good(&guest, &spec(1), (StampStep::Hooks, libc::EIO));
    assert!(
        detail.contains("20-bad exited with 4: no database"),
        "{detail}"
    );
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_it_started() {
    let Some(guest) = Guest::start() else { return };
    hook(&guest, "10-hang", "setsid sleep 1000 & sleep 1000");
    let mut spec = spec(1);
    spec.hook_timeout_ms = 100;
    let detail = fails_for_good(&guest, &spec, (StampStep::Hooks, libc::ETIMEDOUT));
    assert!(detail.contains("ran out of time"), "{detail}");
    wait_for_event(&guest.cgroup.0.join("brood-stamp-1"), "populated 0");
}

#[test]
fn a_refused_system_call_fails_the_stamp_at_its_step() {
    let Some(guest) = Guest::start() else { return };
    guest.system.0.lock().unwrap().refuse = Some("set_realtime");
    fails_for_good(&guest, &spec(1), (StampStep::Clock, libc::EPERM));
    assert!(!guest.root().join("etc/machine-id").exists());
}

#[test]
fn an_unsound_stamp_changes_nothing() {
    let Some(guest) = Guest::start() else { return };
    let mut spec = spec(1);
    spec.files.push(StampFile {
        path: "/a/../../b".into(),
        mode: 0o600,
        bytes: Vec::new().into(),
    });
    fails_for_good(&guest, &spec, (StampStep::Validate, libc::EINVAL));
    assert!(guest.system.0.lock().unwrap().calls.is_empty());
    assert!(!guest.root().join("run").exists());
}

#[test]
fn what_a_hook_leaves_running_is_part_of_the_workload_of_the_next_quiesce() {
    let Some(guest) = Guest::start() else { return };
    hook(&guest, "10-daemon", "setsid sleep 1000 >/dev/null 2>&1 &");
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    stamp(guest.client(), &spec(1))
        .unwrap()
        .confirm()
        .unwrap()
        .thaw()
        .unwrap();
    let left = guest.cgroup.0.join("brood-stamp-1");
    assert!(has_event(&left, "populated 1"));
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    assert!(has_event(&left, "frozen 1"));
    // The second stamp's programs run although the first's are frozen.
    assert!(stamp(guest.client(), &spec(2)).is_ok());
}

#[test]
fn ssh_host_keys_are_made_anew_of_the_same_type() {
    let Some(guest) = Guest::start() else { return };
    let keygen = std::path::Path::new("/usr/bin/ssh-keygen");
    if !keygen.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI needs ssh-keygen");
        eprintln!("skipped: no ssh-keygen here");
        return;
    }
    let root = guest.root();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir_all(root.join("etc/ssh")).unwrap();
    std::os::unix::fs::symlink(keygen, root.join("usr/bin/ssh-keygen")).unwrap();
    for kind in ["ed25519", "ecdsa"] {
        fs::write(root.join(format!("etc/ssh/ssh_host_{kind}_key")), "old").unwrap();
    }
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    drop(stamp(guest.client(), &spec(1)).unwrap());
    assert!(
        guest
            .text("/etc/ssh/ssh_host_ed25519_key.pub")
            .starts_with("ssh-ed25519 ")
    );
    assert!(
        guest
            .text("/etc/ssh/ssh_host_ecdsa_key.pub")
            .starts_with("ecdsa-sha2-")
    );
    assert!(
        guest
            .text("/etc/ssh/ssh_host_ed25519_key")
            .contains("PRIVATE KEY")
    );
}

#[test]
fn a_timeout_does_not_count_the_time_spent_frozen() {
    let Some(guest) = Guest::start() else { return };
    let mut client = guest.client();
    let mut spec = sh("echo up; sleep 1000");
    spec.timeout_ms = Some(300);
    let exec = client.exec(&spec).unwrap();
    let quiesced = guest.client().quiesce(TOKEN, TIMEOUT).unwrap();
    let mut attachment = client.attach(&AttachSpec::all(exec)).unwrap();
    // Longer than its timeout, and it is still there.
    while attachment
        .next(Duration::from_millis(600))
        .unwrap()
        .is_some()
    {}
    assert_eq!(
        guest.client().exec_status(exec).unwrap().state,
        ExecState::Running
    );
    quiesced.thaw().unwrap();
    loop {
        if let AttachEvent::Ended { state, .. } = attachment.next(TIMEOUT).unwrap().unwrap() {
            assert_eq!(state, ExecState::TimedOut);
            break;
        }
    }
}

#[test]
fn sessions_and_their_output_are_there_for_a_daughters_new_connection() {
    let Some(guest) = Guest::start() else { return };
    let mut mother = guest.client();
    let exec = mother
        .exec(&sh("echo before; read x </dev/zero; echo never"))
        .unwrap();
    let mut attachment = mother.attach(&AttachSpec::all(exec)).unwrap();
    let Some(AttachEvent::Output(first)) = attachment.next(TIMEOUT).unwrap() else {
        panic!("no output");
    };
    drop(guest.client().quiesce(TOKEN, TIMEOUT).unwrap());
    drop(attachment);
    drop(mother);
    let confirmed = stamp(guest.client(), &spec(1)).unwrap().confirm().unwrap();
    let mut daughter = confirmed.thaw().unwrap();
    let mut again = daughter
        .attach(&AttachSpec {
            stdout: From::Offset(0),
            ..AttachSpec::all(exec)
        })
        .unwrap();
    assert_eq!(
        again.next(TIMEOUT).unwrap(),
        Some(AttachEvent::Output(first))
    );
}
