//! The promises of a stamped fork, kept by a stock Linux kernel: distinct where the word is distinct, no workload
//! instruction before confirm, no half-made daughter handed out, no fork of a workload that does not stand still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::common::{SMALL, boot, born, host, identity, live, shell, stamp, start, until};
use brood_agent_proto::fork::{StampCommand, StampFile};
use brood_cell::protocol::Checkpoint;
use brood_service::fork::{self, Daughter, IdentitySpec};
use brood_service::machine::Machine;
use brood_testkit::{is_alive, settle};

/// What a wall clock may be wrong by after a stamp, beyond half the round trip with which it was read.
const CLOCK_ERROR: Duration = Duration::from_millis(5);
/// Waits for a word on one pipe, then draws randomness that was not drawn before the fork, and tells on another.
const DRAW_WHEN_TOLD: &str = "mkfifo /run/go /run/drawn; read go < /run/go; \
    od -An -tx1 -N16 /dev/urandom > /run/drawn";
/// Everything of a machine that must be her own, one `name value` a line. The generation id is read where the
/// hypervisor put it, page 0xdf of guest memory.
const LOOK: &str = "read name < /proc/sys/kernel/hostname; echo hostname $name; \
    echo env $BROOD_NAME; echo boot-id $(cat /proc/sys/kernel/random/boot_id); \
    read id < /etc/machine-id; echo machine-id $id; \
    read -r json < /run/brood/identity.json; echo identity $json; \
    echo urandom $(od -An -tx1 -N16 /dev/urandom); \
    echo go > /run/go; read drawn < /run/drawn; echo drawn $drawn; \
    dd if=/dev/mem of=/run/page bs=4096 skip=223 count=1 2>/dev/null; \
    echo generation-id $(od -An -tx1 -N16 /run/page)";

/// What no two daughters have in common.
const MUST_DIFFER: [&str; 9] = [
    "hostname",
    "env",
    "machine-id",
    "boot-id",
    "identity",
    "urandom",
    "drawn",
    "getrandom",
    "generation-id",
];

/// The workload of a machine that draws when told.
fn drawing(machine: &mut Machine) {
    start(machine, DRAW_WHEN_TOLD);
    until(machine, "[ -p /run/drawn ]");
}

/// What [`LOOK`] sees in each, in order, a few at once.
fn look(daughters: &mut [Daughter]) -> Vec<BTreeMap<String, String>> {
    const AT_ONCE: usize = 2;
    let see = |daughter: &mut Daughter| -> BTreeMap<String, String> {
        let seen = shell(&mut daughter.machine, LOOK);
        let fields = seen
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")));
        fields
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let share = daughters.len().div_ceil(AT_ONCE);
    std::thread::scope(|scope| {
        let looking: Vec<_> = daughters
            .chunks_mut(share)
            .map(|some| scope.spawn(move || some.iter_mut().map(see).collect::<Vec<_>>()))
            .collect();
        looking
            .into_iter()
            .flat_map(|thread| thread.join().expect("a look"))
            .collect()
    })
}

/// Forks `mother` into `count` and checks that the daughters share nothing that must be their own.
fn fork_and_compare(mother: &mut Machine, count: u32) -> Vec<Daughter> {
    let start = Instant::now();
    let mut daughters = live(mother, count, "d", None);
    println!("{count} daughters confirmed after {:?}", start.elapsed());
    let mut seen = look(&mut daughters);
    println!("{count} daughters looked at after {:?}", start.elapsed());
    for (daughter, seen) in daughters.iter().zip(&mut seen) {
        let confirm = &daughter.confirm;
        assert_eq!(seen["hostname"], daughter.machine.hostname);
        assert_eq!(seen["env"], daughter.machine.hostname);
        assert_eq!(seen["machine-id"], daughter.machine.id.to_string());
        assert_eq!(seen["boot-id"], confirm.boot_id);
        assert!(
            seen["identity"].contains(&daughter.machine.id.to_string()),
            "{}",
            seen["identity"]
        );
        seen.insert("getrandom".to_owned(), format!("{:?}", confirm.random));
    }
    let shared = MUST_DIFFER.iter().filter(|field| {
        let values: BTreeSet<_> = seen.iter().map(|seen| seen[**field].as_str()).collect();
        values.len() < count as usize || values.iter().any(|value| value.len() < 2)
    });
    let shared: Vec<_> = shared.collect();
    assert!(shared.is_empty(), "empty or shared: {shared:?}");
    right_clocks(&daughters);
    daughters
}

/// Every wall clock is right as far as it could be measured.
///
/// The round trip is that of the exchange in which the daughter's clock was read, not an average or another daughter's.
fn right_clocks(daughters: &[Daughter]) {
    let error =
        |daughter: &Daughter| Duration::from_nanos(daughter.timing.clock_error_ns.unsigned_abs());
    let trip = |daughter: &Daughter| Duration::from_nanos(daughter.timing.clock_round_trip_ns);
    let worst = daughters
        .iter()
        .max_by_key(|daughter| error(daughter))
        .expect("a daughter");
    println!(
        "wall clocks: worst error {:?} in a round trip of {:?}; longest round trip {:?}",
        error(worst),
        trip(worst),
        daughters.iter().map(trip).max().unwrap_or_default()
    );
    for daughter in daughters {
        let limit = CLOCK_ERROR + trip(daughter) / 2;
        assert!(
            error(daughter) <= limit,
            "{}: {:?} over {limit:?}",
            daughter.machine.hostname,
            error(daughter)
        );
    }
}

fn end_all(daughters: Vec<Daughter>) {
    for daughter in daughters {
        daughter.machine.end().expect("she ends");
    }
}

#[test]
fn lab_sixty_four_daughters_of_one_live_fork_share_nothing_that_must_be_their_own() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    mother.cell().seal().expect("seal");
    drawing(&mut mother);
    let mut daughters = fork_and_compare(&mut mother, 64);
    let log = "dmesg | grep -c 'crng reseeded due to virtual machine fork'";
    assert_eq!(
        shell(&mut daughters[0].machine, log),
        "1",
        "VMGenID was announced"
    );
    assert_eq!(
        shell(&mut mother, "uname -n"),
        "(none)",
        "the mother stays who she is"
    );
    end_all(daughters);
}

#[test]
fn lab_daughters_share_nothing_that_must_be_their_own_without_vmgenid_either() {
    let Some(host) = host() else { return };
    // The driver's name is spelt so in Linux 6.12.
    let words = "initcall_blacklist=vmgenid_plaform_driver_init,vmgenid_platform_driver_init";
    let mut mother = boot(&host, SMALL, words);
    assert_eq!(
        shell(
            &mut mother,
            "ls /sys/bus/*/drivers | grep -ci vmgenid || true"
        ),
        "0",
        "its driver is off"
    );
    mother.cell().seal().expect("seal");
    drawing(&mut mother);
    let mut daughters = fork_and_compare(&mut mother, 64);
    let log = "dmesg | grep -c 'crng reseeded due to virtual machine fork' || true";
    assert_eq!(
        shell(&mut daughters[0].machine, log),
        "0",
        "VMGenID was not announced"
    );
    end_all(daughters);
}

/// Reads one face of the identity after the other, with shell built-ins only, and logs each at once.
const WATCH: &str = "while :; do \
    read v < /proc/sys/kernel/hostname; echo h $v >> /run/seen; \
    read v < /etc/machine-id; echo m $v >> /run/seen; \
    read v < /proc/sys/kernel/random/boot_id; echo b $v >> /run/seen; \
    read -r v < /run/brood/identity.json; echo j $v >> /run/seen; done";

#[test]
fn lab_no_workload_instruction_runs_in_a_daughter_before_she_is_confirmed() {
    let Some(host) = host() else { return };
    let mut first = boot(&host, SMALL, "");
    // A mother who was stamped herself has an identity in every place.
    let mut mother = live(&mut first, 1, "mother", None)
        .pop()
        .expect("one daughter");
    let (mothers_id, mothers_boot) = (
        mother.machine.id.to_string(),
        mother.confirm.boot_id.clone(),
    );
    start(&mut mother.machine, WATCH);
    until(
        &mut mother.machine,
        "[ $(wc -l < /run/seen 2>/dev/null || echo 0) -gt 100 ]",
    );
    let mut daughters = live(&mut mother.machine, 4, "d", Some("/run/seen"));
    let point = daughters[0].seen_frozen.clone();
    let lines = point.iter().filter(|byte| **byte == b'\n').count();
    let of = |line: &str, hostname: &str, id: &str, boot: &str| match line.split_once(' ') {
        Some(("h", name)) => name == hostname,
        Some(("m", machine)) => machine == id,
        Some(("b", boot_id)) => boot_id == boot,
        Some(("j", json)) => {
            json.contains(&format!("\"machine_id\":\"{id}\""))
                && json.contains(&format!("\"hostname\":\"{hostname}\""))
        }
        _ => false,
    };
    let text = String::from_utf8(point.clone()).expect("text");
    for line in text.lines() {
        assert!(
            of(line, "mother0", &mothers_id, &mothers_boot),
            "the mother saw {line}"
        );
    }
    for daughter in &mut daughters {
        let name = daughter.machine.hostname.clone();
        // After the stamp and still at the point: nothing ran before or during it.
        assert!(
            daughter.seen_frozen == point,
            "{name}'s workload ran before she was confirmed"
        );
        until(
            &mut daughter.machine,
            &format!("[ $(wc -l < /run/seen) -gt {} ]", lines + 100),
        );
        let later = shell(
            &mut daughter.machine,
            &format!("tail -n +{} /run/seen | head -n 400", lines + 1),
        );
        let (id, boot_id) = (
            daughter.machine.id.to_string(),
            daughter.confirm.boot_id.clone(),
        );
        // What was read at the point and not yet written is the mother's: one line at most.
        let strangers: Vec<_> = later
            .lines()
            .skip(1)
            .filter(|line| !of(line, &name, &id, &boot_id))
            .collect();
        assert!(strangers.is_empty(), "{name} saw {strangers:?}");
        println!(
            "{name}: {lines} lines at the point, {} of hers after it",
            later.lines().count()
        );
    }
    end_all(daughters);
}

#[test]
fn lab_a_workload_that_does_not_freeze_refuses_the_fork_by_its_pid_and_runs_on() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    shell(
        &mut mother,
        "mkdir -p /data && mount -t ext4 /dev/vda /data && busybox fsfreeze --freeze /data",
    );
    start(
        &mut mother,
        "i=0; while :; do i=$((i+1)); echo $i >> /run/count; done",
    );
    until(&mut mother, "[ -s /run/count ]");
    // A write to a frozen file system waits uninterruptibly (ioctl_fsfreeze(2)).
    let writer = start(&mut mother, "echo blocked > /data/file");
    let pid = mother
        .agent()
        .expect("agent")
        .exec_status(writer)
        .expect("status")
        .pid;
    until(
        &mut mother,
        &format!("grep -q 'State:.D' /proc/{pid}/status"),
    );
    let refusal = match fork::live(&mut mother, 1, Checkpoint::Keep) {
        Ok(_) => panic!("forked though process {pid} did not freeze"),
        Err(refusal) => format!("{refusal:#}"),
    };
    println!("refused: {refusal}");
    let named = refusal
        .split(|letter: char| !letter.is_ascii_digit())
        .any(|word| word == pid.to_string());
    assert!(
        named,
        "process {pid} is in the way but the refusal says: {refusal}"
    );
    // The rest of the workload goes on.
    let count = shell(&mut mother, "tail -n 1 /run/count");
    until(
        &mut mother,
        &format!(
            "[ \"$(tail -n 1 /run/count)\" -gt {} ]",
            count.parse::<u64>().expect("a count") + 10
        ),
    );
    shell(&mut mother, "busybox fsfreeze --unfreeze /data");
    until(&mut mother, "[ -s /data/file ]");
    let mut daughters = live(&mut mother, 1, "after", None);
    assert_eq!(
        shell(&mut daughters[0].machine, "cat /data/file"),
        "blocked"
    );
    end_all(daughters);
}

/// Fails in daughter 1, never ends in daughter 2, renames daughter 3 behind the agent's back, panics daughter 4, hangs
/// the agent of daughter 5 at her confirm, since nobody will write to that machine id.
const BAD_HOOK: &str = "#!/bin/sh\ncase $BROOD_FORK_INDEX in 1) echo no >&2; exit 1;; \
    2) exec sleep 1000;; 3) hostname liar;; 4) echo c > /proc/sysrq-trigger;; \
    5) rm /etc/machine-id; mkfifo /etc/machine-id;; esac\n";
/// Longer than any good daughter of the lab takes to confirm, and than a hook may run.
const CONFIRM_LIMIT: Duration = Duration::from_secs(25);

#[test]
fn lab_a_daughter_that_cannot_confirm_is_killed_and_never_handed_out() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    let hook = "/etc/brood/fork.d/10-bad";
    shell(
        &mut mother,
        &format!("mkdir -p /etc/brood/fork.d; printf '%s' '{BAD_HOOK}' > {hook}; chmod 755 {hook}"),
    );
    let unstamped = born(fork::live(&mut mother, 7, Checkpoint::Drop).expect("a live fork"));
    let pids: Vec<u32> = unstamped.iter().map(fork::Unstamped::pid).collect();
    let mut stamped: Vec<_> = unstamped
        .into_iter()
        .enumerate()
        .map(|(index, daughter)| {
            daughter.stamp(&identity(&format!("d{index}"), None), CONFIRM_LIMIT)
        })
        .collect();
    for (index, why) in [
        (1, "exited with 1"),
        (2, "ran out of time"),
        (3, "reports hostname 'liar'"),
        (4, "Panic"),
        (5, "her confirm failed (her agent hangs"),
    ] {
        let error = match &stamped[index] {
            Ok(_) => panic!("daughter {index} was handed out"),
            Err(error) => format!("{error:#}"),
        };
        println!("daughter {index}: {error}");
        assert!(error.contains(why), "daughter {index}: {error}");
        settle("her cell is gone", || !is_alive(pids[index]));
    }
    for index in [0, 6] {
        let daughter = stamped[index].as_mut().expect("a good daughter");
        assert!(is_alive(pids[index]));
        assert_eq!(
            shell(&mut daughter.machine, "uname -n"),
            format!("d{index}")
        );
    }
    assert_eq!(shell(&mut mother, "echo alive"), "alive");
    let daughters: Vec<_> = stamped.into_iter().flatten().collect();
    assert_eq!(daughters.len(), 2);
    end_all(daughters);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "no process is left");
}

/// Sees every change of the counter that a program with a generator of its own would watch.
const WATCH_GENERATION: &str = "last=; while :; do g=; read g < /run/brood/generation; \
    [ \"$g\" = \"$last\" ] || { od -An -tu8 /run/brood/generation >> /run/watched; last=$g; }; done";

#[test]
fn lab_every_stamp_raises_the_generation_once_and_programs_and_hooks_see_it() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    let hook = "/etc/brood/fork.d/10-seen";
    let script = "#!/bin/sh\nod -An -tu8 /run/brood/generation >> /run/hooked\n";
    shell(
        &mut mother,
        &format!("mkdir -p /etc/brood/fork.d; printf '%s' '{script}' > {hook}; chmod 755 {hook}"),
    );
    let mut first = live(&mut mother, 1, "first", None)
        .pop()
        .expect("a daughter")
        .machine;
    let words = |text: String| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let inode = "stat -c %i /run/brood/generation";
    start(&mut first, WATCH_GENERATION);
    until(&mut first, "[ -s /run/watched ]");
    let place = shell(&mut first, inode);
    let second = born(fork::live(&mut first, 2, Checkpoint::Drop).expect("a live fork"));
    for daughter in &mut stamp(second, "second", None) {
        let machine = &mut daughter.machine;
        until(machine, "[ $(wc -l < /run/watched) -ge 2 ]");
        assert_eq!(
            words(shell(machine, "cat /run/watched")),
            ["1", "2"],
            "a program saw each change once"
        );
        assert_eq!(
            words(shell(machine, "cat /run/hooked")),
            ["1", "2"],
            "the hook ran once a stamp"
        );
        assert_eq!(
            shell(machine, inode),
            place,
            "mappings and watches of the file stay good"
        );
    }
    assert_eq!(
        words(shell(&mut first, "cat /run/watched")),
        ["1"],
        "the mother was not stamped again"
    );
    assert_eq!(
        shell(
            &mut mother,
            "ls /run/brood/generation 2>/dev/null || echo none"
        ),
        "none"
    );
}

/// Renews what it is told to, and says with what.
const RENEW: &str =
    "echo $BROOD_NAME $BROOD_FORK_INDEX \"$SECRET\" $(cat /etc/app/token) > /run/renewed";
/// Logs the token it would use, over and over.
const USE_TOKEN: &str = "while :; do read token < /etc/app/token; echo $token >> /run/used; done";

/// An identity with something of every kind.
fn full_identity(index: usize) -> IdentitySpec {
    let mut identity = identity(&format!("d{index}"), Some("/run/used"));
    identity
        .env
        .push(("SECRET".to_owned(), format!("it's {index}")));
    identity.files.push(StampFile {
        path: "/etc/app/token".to_owned(),
        mode: 0o640,
        bytes: format!("token-{index}\n").into_bytes().into(),
    });
    identity.commands.push(StampCommand {
        argv: ["sh", "-c", RENEW].map(str::to_owned).to_vec(),
    });
    identity
}

#[test]
fn lab_files_variables_and_commands_of_an_identity_are_there_before_the_workload_runs() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    let hook = "/etc/brood/fork.d/10-app";
    let script = "#!/bin/sh\necho hook $SECRET $(cat /etc/app/token) > /run/hooked\n";
    shell(
        &mut mother,
        &format!(
            "mkdir -p /etc/app /etc/brood/fork.d; echo mothers > /etc/app/token; \
             printf '%s' '{script}' > {hook}; chmod 755 {hook}"
        ),
    );
    start(&mut mother, USE_TOKEN);
    until(
        &mut mother,
        "[ $(wc -l < /run/used 2>/dev/null || echo 0) -gt 20 ]",
    );
    let unstamped = born(fork::live(&mut mother, 4, Checkpoint::Drop).expect("a live fork"));
    let mut failing = None;
    for (index, daughter) in unstamped.into_iter().enumerate() {
        let mut identity = full_identity(index);
        if index == 3 {
            identity.commands.push(StampCommand {
                argv: ["sh", "-c", "echo no token server >&2; exit 9"]
                    .map(str::to_owned)
                    .to_vec(),
            });
        }
        let pid = daughter.pid();
        let stamped = daughter.stamp(&identity, fork::patience(4));
        if index == 3 {
            let error = format!("{:#}", stamped.err().expect("her command fails"));
            assert!(error.contains("no token server"), "{error}");
            assert!(!is_alive(pid));
            failing = Some(error);
            continue;
        }
        let Daughter {
            mut machine,
            seen_frozen,
            ..
        } = stamped.expect("she is confirmed");
        let seen = |machine: &mut Machine, line: &str| shell(machine, line);
        let token = format!("token-{index}");
        assert_eq!(seen(&mut machine, "cat /etc/app/token"), token);
        assert_eq!(seen(&mut machine, "stat -c %a /etc/app/token"), "640");
        assert_eq!(
            seen(&mut machine, "echo \"$SECRET\""),
            format!("it's {index}")
        );
        assert_eq!(
            seen(&mut machine, "cat /run/hooked"),
            format!("hook it's {index} {token}"),
            "the guest's hooks see what came with the stamp"
        );
        assert_eq!(
            seen(&mut machine, "cat /run/renewed"),
            format!("d{index} {index} it's {index} {token}")
        );
        // What was read at the point and not yet written is the mother's: one line at most.
        let lines = seen_frozen.iter().filter(|byte| **byte == b'\n').count();
        until(
            &mut machine,
            &format!("[ $(wc -l < /run/used) -gt {} ]", lines + 50),
        );
        let line = format!("tail -n +{} /run/used | sort -u", lines + 2);
        assert_eq!(seen(&mut machine, &line), token, "no other token was used");
        machine.end().expect("she ends");
    }
    println!("{}", failing.expect("the fourth failed"));
    assert_eq!(
        shell(
            &mut mother,
            "sort -u /run/used; ls /run/renewed /run/hooked 2>/dev/null | wc -l"
        ),
        "mothers\n0",
        "the mother keeps what is hers"
    );
}
