//! The entropy step at the system calls it is made of. What the kernel's generator then gives cannot prove it: a kernel
//! reseeds itself from time to time, so two daughters that were never given a seed differ soon in any case.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::ffi::{c_long, c_void};
use std::fs;
use std::ptr;

use brood_agent::options::Role;
use brood_agent::system::{Kernel, System};

/// include/uapi/linux/random.h.
const RNDADDENTROPY: u64 = 0x4008_5203;
const RNDRESEEDCRNG: u64 = 0x5207;

/// An ioctl that the traced child was about to make.
#[derive(Debug, PartialEq, Eq)]
struct Ioctl {
    /// What its descriptor leads to.
    file: String,
    request: u64,
    /// The memory at its argument, for a request that reads some.
    bytes: Vec<u8>,
}

/// Runs `work` in a child, lets no ioctl of it reach the kernel but answers 0, and returns them with its exit code.
#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a child between fork and exit is all system calls"
)]
fn ioctls_of(work: impl FnOnce() -> i32) -> (Vec<Ioctl>, i32) {
    // SAFETY: the child makes system calls and `work`, which allocates nothing, and ends without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let none = ptr::null_mut::<c_void>();
        // SAFETY: none of these takes a pointer that is read.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, none, none);
            libc::raise(libc::SIGSTOP);
        }
        let code = work();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut made = Vec::new();
    let mut entering = true;
    let mut stop = wait(child);
    assert!(
        libc::WIFSTOPPED(stop) && libc::WSTOPSIG(stop) == libc::SIGSTOP,
        "the child waits to be traced"
    );
    let mut answered = false;
    loop {
        trace(libc::PTRACE_SYSCALL, child, 0);
        stop = wait(child);
        if libc::WIFEXITED(stop) {
            return (made, libc::WEXITSTATUS(stop));
        }
        assert!(
            libc::WIFSTOPPED(stop) && libc::WSTOPSIG(stop) == libc::SIGTRAP,
            "{stop:#x}"
        );
        let mut registers = registers(child);
        if entering && registers.orig_rax == libc::SYS_ioctl.cast_unsigned() {
            made.push(Ioctl {
                file: fs::read_link(format!("/proc/{child}/fd/{}", registers.rdi))
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
                request: registers.rsi,
                bytes: argument(child, registers.rsi, registers.rdx),
            });
            // No such call: the machine that runs this test keeps its generator as it is.
            registers.orig_rax = u64::MAX;
            set_registers(child, &registers);
            answered = true;
        } else if !entering && answered {
            registers.rax = 0;
            set_registers(child, &registers);
            answered = false;
        }
        entering = !entering;
    }
}

fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is an int.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

fn trace(request: libc::c_uint, child: libc::pid_t, data: usize) -> c_long {
    // SAFETY: the requests used with this take no pointer.
    let result = unsafe { libc::ptrace(request, child, ptr::null_mut::<c_void>(), data) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result
}

fn registers(child: libc::pid_t) -> libc::user_regs_struct {
    // SAFETY: plain numbers, for which zero is a value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    let none = ptr::null_mut::<c_void>();
    // SAFETY: PTRACE_GETREGS writes a user_regs_struct.
    let read = unsafe { libc::ptrace(libc::PTRACE_GETREGS, child, none, &raw mut registers) };
    assert_eq!(read, 0);
    registers
}

fn set_registers(child: libc::pid_t, registers: &libc::user_regs_struct) {
    let none = ptr::null_mut::<c_void>();
    let registers = ptr::from_ref(registers);
    // SAFETY: PTRACE_SETREGS reads a user_regs_struct.
    let written = unsafe { libc::ptrace(libc::PTRACE_SETREGS, child, none, registers) };
    assert_eq!(written, 0);
}

/// `struct rand_pool_info` and the bytes behind it, as many as it says.
fn argument(child: libc::pid_t, request: u64, at: u64) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    if request != RNDADDENTROPY {
        return Vec::new();
    }
    let memory = fs::File::open(format!("/proc/{child}/mem")).unwrap();
    let mut head = [0; 8];
    memory.read_exact_at(&mut head, at).unwrap();
    let len = u32::from_le_bytes(head[4..].try_into().unwrap());
    assert!(len <= 4096, "{len} bytes");
    let mut bytes = head.to_vec();
    bytes.resize(8 + usize::try_from(len).unwrap(), 0);
    memory.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn the_whole_seed_is_credited_to_the_kernels_generator_which_then_reseeds() {
    let seed: [u8; 64] = std::array::from_fn(|index| u8::try_from(index * 3).unwrap());
    let (made, code) = ioctls_of(|| {
        let kernel = Kernel::new(Role::Service);
        i32::from(kernel.add_entropy(&seed).is_err())
    });
    assert_eq!(code, 0, "both calls are answered");
    let (bits, len) = (512_i32, 64_i32);
    let credited = [&bits.to_le_bytes()[..], &len.to_le_bytes(), &seed].concat();
    let on_the_generator = |request, bytes| Ioctl {
        file: "/dev/urandom".to_owned(),
        request,
        bytes,
    };
    assert_eq!(
        made,
        [
            on_the_generator(RNDADDENTROPY, credited),
            on_the_generator(RNDRESEEDCRNG, Vec::new()),
        ]
    );
}
