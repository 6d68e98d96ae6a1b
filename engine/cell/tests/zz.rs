mod common;
use std::io::Read;
use std::time::Duration;
use brood_bare_guest::mailbox::Command;
use common::*;
#[test]
fn t() {
    let Some(host) = host() else { return };
    let mut c = host.bare(64, 1);
    c.begin_command(0, Command::VsockCount { port: 77 }).expect("counts");
    let mut n = 0;
    let mut s = loop { n += 1; match c.connect(77) { Ok(s) => break s, Err(e) => if n < 3 { println!("{e}") } } };
    println!("connected after {n}");
    s.set_read_timeout(Some(Duration::from_secs(3))).expect("t");
    let mut w = [0; 64];
    println!("{:?}", s.read(&mut w));
    println!("{:?}", c.stats().map(|s| s.ticks));
    let mut s = c.connect(77).expect("again");
    s.set_read_timeout(Some(Duration::from_secs(3))).expect("t");
    println!("{:?}", s.read(&mut w));
    println!("{:?}", c.stats().map(|s| s.ticks));
    println!("{:?}", c.command(0, Command::Idle{}));
}
