//! What goes on running through a fork: sessions, clocks, disks, vCPUs, lineages; and how machines end.

#![expect(clippy::panic, reason = "helpers of tests fail tests")]

use std::time::{Duration, Instant};

use crate::common::{SMALL, all, boot, born, host, identity, live, shell, stamp, start, until};
use brood_agent_proto::client::AttachEvent;
use brood_agent_proto::exec::{
    AttachSpec, ExecId, ExecSpec, Follow, From, Removal, Stdin, Stream, TtySize,
};
use brood_agent_proto::stat::Clocks;
use brood_agent_proto::{Attachment, Client};
use brood_cell::protocol::{Checkpoint, Ending, Event};
use brood_service::fork::{self, Daughter, Frozen, Template};
use brood_service::machine::{Machine, Size};

/// How long anything may take that takes milliseconds on a good day.
const PATIENCE: Duration = Duration::from_secs(60);

fn from(exec: ExecId, offset: u64) -> AttachSpec {
    AttachSpec {
        exec,
        stdout: From::Offset(offset),
        stderr: From::Now,
        follow: Follow::UntilExit,
    }
}

/// Reads on until `enough` says so; the offset behind what was read. Fails at a gap.
fn read_on(
    attachment: &mut Attachment<&mut Client>,
    text: &mut String,
    mut offset: u64,
    enough: impl Fn(&str) -> bool,
) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    while !enough(text) {
        assert!(Instant::now() < deadline, "no more output after {text:?}");
        match attachment.next(PATIENCE).expect("output") {
            Some(AttachEvent::Output(piece)) if piece.stream == Stream::Stdout => {
                assert_eq!((piece.lost, piece.offset), (0, offset), "output has a gap");
                offset += piece.bytes.0.len() as u64;
                text.push_str(&String::from_utf8_lossy(&piece.bytes.0));
            }
            other => panic!("output was due, not {other:?}"),
        }
    }
    offset
}

/// The whole lines of `text` count on from `first`.
fn counts_on(text: &str, first: u64) {
    let lines = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    for (line, wanted) in lines.lines().zip(first..) {
        assert_eq!(line.trim(), wanted.to_string(), "in {text:?}");
    }
}

/// Sockets of the agent: its listener and one for each conversation.
fn conversations(machine: &mut Machine) -> u64 {
    shell(machine, "ls -l /proc/1/fd | grep -c socket:")
        .parse()
        .expect("a number")
}

#[test]
fn lab_sessions_run_on_through_a_fork_and_are_attached_to_again_without_a_gap() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    let counter = start(
        &mut mother,
        "i=0; while :; do i=$((i+1)); echo $i; busybox usleep 10000; done",
    );
    let mut spec = ExecSpec::new(["sh"]);
    spec.tty = Some(TtySize { rows: 24, cols: 80 });
    spec.stdin = Stdin::Pipe;
    let agent = mother.agent().expect("agent");
    let terminal = agent.exec(&spec).expect("a terminal");
    agent.write_stdin(terminal, b"X=41\n").expect("typing");
    let mut idle: Vec<_> = (0..3)
        .map(|_| mother.connect().expect("a conversation"))
        .collect();
    let mut watching = mother.connect().expect("another conversation");
    let mut open = watching.attach(&from(counter, 0)).expect("attach");
    let mut seen = String::new();
    let offset = read_on(&mut open, &mut seen, 0, |text| text.lines().count() > 5);
    let before = conversations(&mut mother);

    let mut daughters = live(&mut mother, 3, "d", None);
    let last = seen.lines().count() + 20;
    read_on(&mut open, &mut seen, offset, |text| {
        text.lines().count() > last
    });
    counts_on(&seen, 1);
    assert!(
        idle.iter_mut().all(|client| client.stats().is_ok()),
        "the mother's conversations go on"
    );

    let whole = seen
        .get(..usize::try_from(offset).expect("small"))
        .expect("what was read");
    let first = whole.matches('\n').count() as u64 + 1;
    let partial = whole
        .rsplit_once('\n')
        .map_or(whole, |(_, rest)| rest)
        .to_owned();
    for Daughter { machine, .. } in &mut daughters {
        let own = conversations(machine);
        assert!(
            own + 4 <= before,
            "{before} sockets in the mother, {own} in her daughter: none was reset"
        );
        let mut client = machine.connect().expect("a conversation");
        let mut again = client.attach(&from(counter, offset)).expect("attach again");
        let mut text = partial.clone();
        read_on(&mut again, &mut text, offset, |text| {
            text.lines().count() > 20
        });
        counts_on(&text, first);
        let end = machine
            .agent()
            .expect("agent")
            .exec_status(terminal)
            .expect("status")
            .stdout_end;
        machine
            .agent()
            .expect("agent")
            .write_stdin(terminal, b"echo v=$((X+1))\n")
            .expect("typing");
        let mut client = machine.connect().expect("a conversation");
        let mut screen = client
            .attach(&from(terminal, end))
            .expect("attach to the terminal");
        read_on(&mut screen, &mut String::new(), end, |text| {
            text.contains("v=42")
        });
        assert_eq!(shell(machine, "echo new"), "new");
    }
}

/// Compares the time since boot with what it was, over and over.
const WATCH_UPTIME: &str = "last=0; while :; do read up idle < /proc/uptime; now=${up%.*}${up#*.}; \
    [ $now -ge $last ] || echo $last $now >> /run/back; last=$now; echo $now >> /run/up; done";

fn clocks(machine: &mut Machine) -> Clocks {
    machine.agent().expect("agent").clocks().expect("clocks")
}

/// The monotonic clock, nanoseconds.
fn monotonic(machine: &mut Machine) -> u64 {
    clocks(machine).monotonic_ns
}

/// How long [`sleeper`] sleeps.
const SLEEP: Duration = Duration::from_secs(5);

/// A program that writes down when it begins to sleep and when it wakes.
fn sleeper(machine: &mut Machine, file: &str) {
    let up = "read up idle < /proc/uptime; echo $up";
    start(
        machine,
        &format!("{up} >> {file}; sleep {}; {up} >> {file}", SLEEP.as_secs()),
    );
    until(machine, &format!("[ -s {file} ]"));
}

/// How long it slept by the machine's own clock; waits until it wakes.
fn slept(machine: &mut Machine, file: &str) -> Duration {
    until(machine, &format!("[ $(wc -l < {file}) -eq 2 ]"));
    let times = shell(machine, &format!("cat {file}"));
    let mut times = times
        .lines()
        .map(|line| line.parse::<f64>().expect("seconds"));
    let (began, woke) = (times.next().expect("two"), times.next().expect("times"));
    Duration::from_secs_f64(woke - began)
}

fn right_clock(daughter: &Daughter) {
    let timing = &daughter.timing;
    println!(
        "wall clock error {} ns, round trip {} ns",
        timing.clock_error_ns, timing.clock_round_trip_ns
    );
    let limit = 5_000_000 + timing.clock_round_trip_ns / 2;
    assert!(
        timing.clock_error_ns.unsigned_abs() <= limit,
        "{} over {limit} ns",
        timing.clock_error_ns
    );
}

/// Time went on in the workload, and never back.
fn never_back(machine: &mut Machine) {
    let lines: u64 = shell(machine, "wc -l < /run/up").parse().expect("a number");
    until(
        machine,
        &format!("[ $(wc -l < /run/up) -gt {} ]", lines + 20),
    );
    assert_eq!(
        shell(machine, "cat /run/back 2>/dev/null || true"),
        "",
        "time went back"
    );
}

#[test]
fn lab_time_never_goes_back_and_a_checkpoint_resumes_at_its_own_with_the_wall_clock_right() {
    const PAUSE: Duration = Duration::from_secs(10);
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    start(&mut mother, WATCH_UPTIME);
    until(&mut mother, "[ -s /run/up ]");
    sleeper(&mut mother, "/run/live");
    let (before, asked) = (monotonic(&mut mother), Instant::now());
    for mut daughter in live(&mut mother, 2, "live", Some("/run/live")) {
        let lines = String::from_utf8_lossy(&daughter.seen_frozen)
            .lines()
            .count();
        assert_eq!(lines, 1, "the timer is pending at the point");
        let passed = daughter
            .confirm
            .monotonic_ns
            .checked_sub(before)
            .expect("not before the fork");
        assert!(
            passed <= asked.elapsed().as_nanos() as u64,
            "more passed inside than outside"
        );
        right_clock(&daughter);
        never_back(&mut daughter.machine);
        let slept = slept(&mut daughter.machine, "/run/live");
        println!("a timer of {SLEEP:?} fired after {slept:?} in a live daughter");
        assert!(slept >= SLEEP, "a timer fired early");
    }
    assert!(slept(&mut mother, "/run/live") >= SLEEP);
    sleeper(&mut mother, "/run/kept");
    let before = monotonic(&mut mother);
    let mut kept = checkpoint(&mut mother);
    let after = monotonic(&mut mother);
    // The claim is about time that passes.
    std::thread::sleep(PAUSE);
    let forked = Instant::now();
    let born = all(kept.fork(2).expect("a fork of the past"));
    for mut daughter in stamp(born, "past", Some("/run/kept")) {
        let limit = after + forked.elapsed().as_nanos() as u64;
        let stands = daughter.confirm.monotonic_ns;
        println!(
            "kept between {before} and {after} ns, {PAUSE:?} later her clock stands at {stands} ns"
        );
        assert!(
            (before..=limit).contains(&stands),
            "not the saved time, {before} to {limit}"
        );
        right_clock(&daughter);
        never_back(&mut daughter.machine);
        let lines = String::from_utf8_lossy(&daughter.seen_frozen)
            .lines()
            .count();
        assert_eq!(lines, 1, "the timer is pending in the past");
        let slept = slept(&mut daughter.machine, "/run/kept");
        println!("a timer of {SLEEP:?} fired after {slept:?} in a daughter of the past");
        assert!(
            (SLEEP..PAUSE).contains(&slept),
            "the time spent as a checkpoint does not count"
        );
        let clocks = clocks(&mut daughter.machine);
        let suspended = Duration::from_nanos(clocks.boottime_ns.abs_diff(clocks.monotonic_ns));
        assert!(
            suspended < PAUSE / 2,
            "boottime stood still as well: {suspended:?}"
        );
    }
    assert!(slept(&mut mother, "/run/kept") >= SLEEP);
    never_back(&mut mother);
    kept.end().expect("the point is let go");
}

/// Appends numbers, each on the disk before it counts as written.
const APPEND: &str =
    "i=0; while :; do i=$((i+1)); echo $i >> /data/log; sync; echo $i > /run/written; done";

/// Takes the disk away from the page cache and reads the log from it; its last number.
fn check_log(machine: &mut Machine, workload: ExecId) -> u64 {
    machine
        .agent()
        .expect("agent")
        .remove(workload, Removal::Kill)
        .expect("the workload is killed");
    let written: u64 = shell(machine, "cat /run/written")
        .parse()
        .expect("a number");
    shell(machine, "umount /data && mount -t ext4 /dev/vda /data");
    let check =
        "awk '$1 != NR { print \"line\", NR, \"is\", $0; exit 1 } END { print NR }' /data/log";
    let last: u64 = shell(machine, check).parse().expect("a gapless log");
    assert!(
        last >= written,
        "{}: {written} were written, {last} are there",
        machine.hostname
    );
    last
}

#[test]
fn lab_forks_under_disk_load_lose_and_duplicate_nothing_and_disks_part_at_the_fork() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    shell(
        &mut mother,
        "mkdir -p /data && mount -t ext4 /dev/vda /data",
    );
    shell(
        &mut mother,
        "dd if=/dev/urandom of=/data/blob bs=64k count=64 2>/dev/null; sync",
    );
    let sum = shell(&mut mother, "md5sum /data/blob");
    let workload = start(&mut mother, APPEND);
    let mut daughters = Vec::new();
    for round in 0..3 {
        let written = shell(&mut mother, "cat /run/written 2>/dev/null || echo 0");
        until(
            &mut mother,
            &format!("[ $(cat /run/written 2>/dev/null || echo 0) -ge $(({written} + 5)) ]"),
        );
        daughters.extend(live(
            &mut mother,
            3,
            &format!("r{round}-d"),
            Some("/run/written"),
        ));
    }
    for Daughter {
        machine,
        seen_frozen,
        ..
    } in &mut daughters
    {
        let name = machine.hostname.clone();
        shell(machine, &format!("echo {name} > /data/$(uname -n)"));
        let at_point: u64 = String::from_utf8_lossy(seen_frozen)
            .trim()
            .parse()
            .expect("a number");
        let last = check_log(machine, workload);
        println!("{name}: {at_point} written at the fork, {last} lines at the end");
        assert!(last >= at_point);
        assert_eq!(
            shell(machine, "md5sum /data/blob"),
            sum,
            "what was written before the fork"
        );
        assert_eq!(
            shell(machine, "ls /data | grep '^r' && cat /data/r*"),
            format!("{name}\n{name}")
        );
    }
    check_log(&mut mother, workload);
    assert_eq!(
        shell(&mut mother, "ls /data | grep -c '^r' || true"),
        "0",
        "no daughter's file is the mother's"
    );
}

/// Keeps four programs busy until every CPU has worked at least five ticks more than at the start.
const ALL_WORK: &str = "work() { grep '^cpu[0-9]' /proc/stat | while read c u n s r; do echo $((u+n+s)); done; }; \
    before=$(work); for i in 1 2 3 4; do while :; do :; done & done; \
    while :; do set -- $before; all=yes; for now in $(work); do [ $now -ge $(($1 + 5)) ] || all=no; shift; done; \
    [ $all = yes ] && break; done; kill $(jobs -p); nproc";

#[test]
fn lab_four_vcpus_boot_and_fork_and_all_of_them_work() {
    let Some(host) = host() else { return };
    let mut mother = boot(
        &host,
        Size {
            ram_mib: 512,
            vcpus: 4,
        },
        "",
    );
    assert_eq!(shell(&mut mother, ALL_WORK), "4");
    start(
        &mut mother,
        "for i in 1 2 3 4; do while :; do :; done & done; wait",
    );
    for mut daughter in live(&mut mother, 4, "smp", None) {
        assert_eq!(shell(&mut daughter.machine, ALL_WORK), "4");
        right_clock(&daughter);
    }
    assert_eq!(shell(&mut mother, ALL_WORK), "4");
}

#[test]
fn lab_ram_of_128_mib_and_of_4608_mib_boots_and_forks() {
    let Some(host) = host() else { return };
    for ram_mib in [128, 4608] {
        let mut mother = boot(&host, Size { ram_mib, vcpus: 1 }, "");
        let total = "while read name kib unit; do [ $name = MemTotal: ] && echo $kib; done < /proc/meminfo; true";
        let kib: u64 = shell(&mut mother, total).parse().expect("KiB");
        let whole = ram_mib << 10;
        println!("{ram_mib} MiB: the guest has {kib} KiB of {whole}");
        assert!(
            (whole * 6 / 10..=whole).contains(&kib),
            "{kib} KiB of {whole}"
        );
        // A kernel takes pages from the top first, so these lie above 4 GiB where there is RAM.
        let sum = shell(
            &mut mother,
            "head -c 8388608 /dev/urandom > /tmp/blob; md5sum /tmp/blob",
        );
        let mut daughters = live(&mut mother, 2, "d", None);
        shell(&mut daughters[0].machine, "echo gone > /tmp/blob");
        assert_eq!(shell(&mut daughters[1].machine, "md5sum /tmp/blob"), sum);
        assert_eq!(shell(&mut mother, "md5sum /tmp/blob"), sum);
    }
}

/// Keeps a checkpoint of a running machine.
fn checkpoint(mother: &mut Machine) -> Frozen {
    let fork = fork::live(mother, 0, Checkpoint::Keep).expect("a checkpoint");
    fork.checkpoint.expect("the checkpoint is kept")
}

/// The one daughter of a checkpoint.
fn past(kept: &mut Frozen, name: &str) -> Machine {
    stamp(all(kept.fork(1).expect("a fork of the past")), name, None)
        .pop()
        .expect("one")
        .machine
}

#[test]
fn lab_lineages_go_on_through_daughters_checkpoints_and_templates() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    shell(&mut mother, "echo mother > /run/line");
    let mut daughter = live(&mut mother, 1, "daughter", None)
        .pop()
        .expect("one")
        .machine;
    shell(&mut daughter, "echo daughter >> /run/line");
    let mut kept = checkpoint(&mut daughter);
    shell(&mut daughter, "echo later >> /run/line");
    daughter.end().expect("a daughter ends");
    let mut third = past(&mut kept, "third");
    assert_eq!(
        (third.generation, shell(&mut third, "cat /run/line")),
        (2, "mother\ndaughter".to_owned())
    );
    shell(&mut third, "echo third >> /run/line");
    let mut fourth = live(&mut third, 1, "fourth", None)
        .pop()
        .expect("one")
        .machine;
    assert_eq!(fourth.generation, 3);
    assert_eq!(fourth.mother, Some(third.id));
    assert_eq!(
        shell(&mut fourth, "cat /run/line"),
        "mother\ndaughter\nthird"
    );
    kept.end().expect("the point is let go");
    let json = shell(&mut fourth, "cat /run/brood/identity.json");
    assert!(
        json.contains("\"generation\":3") && json.contains(&third.id.to_string()),
        "{json}"
    );

    let template = Template::seal(fourth).expect("a template");
    let warm: Vec<_> = (0..2)
        .map(|index| template.warm(&host, index).expect("a warm daughter"))
        .collect();
    for (warm, name) in warm.into_iter().zip(["warm0", "warm1"]) {
        let claimed = warm
            .claim()
            .expect("claim")
            .stamp(&identity(name, None), fork::patience(1))
            .expect("stamp");
        println!(
            "{name}: confirmed {:.0} us after the claim",
            claimed.timing.confirmed
        );
        let mut machine = claimed.machine;
        assert_eq!(
            (machine.generation, machine.mother),
            (4, Some(template.id()))
        );
        let line = format!("echo {name} >> /run/line; uname -n; cat /run/line");
        assert_eq!(
            shell(&mut machine, &line),
            format!("{name}\nmother\ndaughter\nthird\n{name}")
        );
        // And one that was claimed can be forked on.
        let mut next = live(&mut machine, 1, "next", None)
            .pop()
            .expect("one")
            .machine;
        assert!(shell(&mut next, "cat /run/line").ends_with(name));
    }
    template.end().expect("the template ends");
    assert_eq!(shell(&mut mother, "cat /run/line"), "mother");
}

/// How the machine said it ended.
fn ending(machine: &mut Machine) -> Ending {
    match machine
        .cell()
        .event(|event| matches!(event, Event::Ended(_)), PATIENCE)
    {
        Ok((Event::Ended(ending), _)) => ending,
        other => panic!("{} did not say how she ended: {other:?}", machine.hostname),
    }
}

#[test]
fn lab_power_off_reboot_and_panic_are_noticed_and_named() {
    let Some(host) = host() else { return };
    let mut mother = boot(&host, SMALL, "");
    let forked = fork::live(&mut mother, 3, Checkpoint::Drop).expect("a live fork");
    let mut daughters = stamp(born(forked), "d", None);
    let ways = ["poweroff -f", "reboot -f", "echo c > /proc/sysrq-trigger"];
    for (daughter, way) in daughters.iter_mut().zip(ways) {
        start(&mut daughter.machine, way);
        let ending = ending(&mut daughter.machine);
        println!("`{way}` is {ending:?}");
        match (way, &ending) {
            ("poweroff -f", Ending::PowerOff) | ("reboot -f", Ending::Reboot) => {}
            (_, Ending::Panic { message }) if message.contains("sysrq") => {}
            _ => panic!("`{way}` is {ending:?}"),
        }
    }
    assert_eq!(shell(&mut mother, "echo alive"), "alive");
}
