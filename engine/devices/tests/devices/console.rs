//! The serial console as a driver and a client of its output see it.

use brood_devices::console::{Console, ConsoleError, INPUT_MAX};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

fn console() -> Console {
    Console::new(event())
}

fn print(console: &mut Console, text: &str) {
    for byte in text.bytes() {
        console.write(0, &[byte]).unwrap();
    }
}

fn interrupted(console: &Console) -> bool {
    console.with_event(|event| event.read().is_ok()).unwrap()
}

/// Reads while the line status says that there is data.
fn typed(console: &mut Console) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        console.read(5, &mut byte).unwrap();
        if byte[0] & 1 == 0 {
            return bytes;
        }
        console.read(0, &mut byte).unwrap();
        bytes.push(byte[0]);
    }
}

#[test]
fn output_is_kept_and_can_be_attached_to_from_any_byte() {
    let mut console = console();
    print(&mut console, "hello\nKernel panic - not syncing: no init\n");
    assert_eq!(console.output(6, 6).bytes, b"Kernel");
    assert_eq!(console.output_end(), 42);
    assert_eq!(
        console.kernel_panic().unwrap(),
        "Kernel panic - not syncing: no init"
    );
    assert_eq!(
        console.last_lines(1),
        ["Kernel panic - not syncing: no init"]
    );
}

#[test]
fn input_longer_than_the_fifo_arrives_in_order_and_interrupts() {
    let mut console = console();
    console.write(1, &[1]).unwrap();
    let text: Vec<u8> = (0..1000).map(|n| n as u8).collect();
    assert_eq!(console.push_input(&text).unwrap(), 1000);
    assert!(interrupted(&console));
    assert_eq!(typed(&mut console), text);
}

#[test]
fn input_that_the_guest_does_not_read_is_bounded() {
    let mut console = console();
    let flood = vec![b'x'; INPUT_MAX * 2];
    assert!(console.push_input(&flood).unwrap() <= INPUT_MAX);
    assert_eq!(console.push_input(&flood).unwrap(), 64);
    assert_eq!(console.push_input(&flood).unwrap(), 0);
}

#[test]
fn state_round_trip_keeps_registers_input_and_output_numbers() {
    let mut mother = console();
    print(&mut mother, "boot");
    mother.write(7, &[0x5a]).unwrap();
    mother.write(1, &[1]).unwrap();
    mother.push_input(&[b'i'; 100]).unwrap();
    let bytes = postcard::to_stdvec(&mother.state()).unwrap();
    let mut daughter = Console::from_state(postcard::from_bytes(&bytes).unwrap(), event()).unwrap();
    assert!(interrupted(&daughter), "pending interrupt was lost");
    assert_eq!(daughter.state(), mother.state());
    print(&mut daughter, "!");
    let chunk = daughter.output(0, 10);
    assert_eq!(
        (chunk.start, chunk.lost, &chunk.bytes[..]),
        (4, 4, &b"!"[..])
    );
    assert_eq!(typed(&mut daughter), [b'i'; 100]);
}

#[test]
fn impossible_state_is_refused() {
    let mut state = console().state();
    state.fifo = vec![0; 65];
    assert!(Console::from_state(state, event()).is_err());
}

#[test]
fn detached_console_keeps_output_and_input_and_says_so() {
    let mut console = console();
    console.write(1, &[3]).unwrap();
    // Takes the interrupt that enabling it has raised.
    console.read(2, &mut [0]).unwrap();
    console.forget_event();
    assert!(matches!(
        console.write(0, b"a"),
        Err(ConsoleError::Detached)
    ));
    assert!(matches!(
        console.push_input(b"b"),
        Err(ConsoleError::Detached)
    ));
    console.attach(event());
    console.redeliver().unwrap();
    assert!(interrupted(&console));
    assert_eq!(console.output(0, 9).bytes, b"a");
    assert_eq!(typed(&mut console), b"b");
}

#[test]
fn every_access_of_every_width_is_survived() {
    let mut console = console();
    for offset in 0..300 {
        for width in 0..9 {
            console.write(offset, &vec![0xff; width]).unwrap();
            console.read(offset, &mut vec![0; width]).unwrap();
            console.push_input(b"typing").unwrap();
        }
    }
}
