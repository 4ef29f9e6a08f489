//! The only unsafe code of the workspace: what neither the standard library nor nix does for a PID 1.
//!
//! * `fork` and `execve` by hand. [`std::process::Command`] waits until the child has executed (a `chdir` into a hung
//!   volume would hang the server) and reaps it itself when it could not (a `waitpid(-1)` elsewhere turns that into a
//!   panic). Here `fork` returns at once, and the child reports through a pipe.
//! * `waitpid` by hand: nix loses the process id of a child that died of a real-time signal.
//! * two settings of the C library's allocator, and one of the scheduler that it has no name for.
#![allow(unsafe_code)]

use nix::{
    errno::Errno,
    libc,
    unistd::{ForkResult, Pid, fork},
};
use pgconvoy_supervisor::protocol::Exit;
use std::{
    ffi::{CString, c_char, c_int},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

/// One arena for all threads, and big buffers back to the kernel when they are freed: this process shall stay small
/// after it has carried a megabyte of output.
pub(crate) fn tune_allocator() {
    // SAFETY: mallopt takes integers and may be called at any time; no other thread exists yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Asks that the calling thread, which sleeps nearly always, need not queue when it wakes: real-time where that is
/// allowed, else the shortest slice (Linux 6.12 and later let everybody choose it). True when either was granted.
pub(crate) fn hurry() -> bool {
    // SCHED_FIFO with the lowest priority; SCHED_OTHER with a slice of 0.1 ms.
    let wishes = [(libc::SCHED_FIFO, 1, 0), (libc::SCHED_OTHER, 0, 100_000)];
    wishes.into_iter().any(|(policy, priority, runtime)| {
        let wish = libc::sched_attr {
            size: size_of::<libc::sched_attr>() as u32,
            sched_policy: policy.unsigned_abs(),
            sched_flags: 0,
            sched_nice: 0,
            sched_priority: priority,
            sched_runtime: runtime,
            sched_deadline: 0,
            sched_period: 0,
        };
        // SAFETY: the kernel reads `size` bytes from the pointer during the call; the first 0 is the calling thread.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) == 0 }
    })
}

/// Takes one ended child, whoever started it.
pub(crate) fn reap() -> Option<(Pid, Exit)> {
    let mut status: c_int = 0;
    // SAFETY: `status` is valid for writing during the call, which keeps no pointer.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    if pid <= 0 {
        return None;
    }
    let exit = if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Signal(libc::WTERMSIG(status))
    };
    Some((Pid::from_raw(pid), exit))
}

/// A program, ready to be executed without any further allocation.
pub(crate) struct Image {
    /// Paths to try, in order.
    pub(crate) candidates: Vec<CString>,
    /// Arguments, the program's name included.
    pub(crate) args: Vec<CString>,
    /// The whole environment.
    pub(crate) env: Vec<CString>,
    /// The working directory.
    pub(crate) cwd: CString,
    /// A file to lock before, if any.
    pub(crate) lock: Option<CString>,
}

/// The descriptors of a new process. None of them is 0, 1 or 2.
pub(crate) struct Descriptors<'a> {
    /// Standard input.
    pub(crate) stdin: BorrowedFd<'a>,
    /// Standard output and standard error.
    pub(crate) output: (BorrowedFd<'a>, BorrowedFd<'a>),
    /// Takes a report if the program cannot be executed, and closes if it was. Close-on-exec.
    pub(crate) report: BorrowedFd<'a>,
}

/// What the child could not do: the bytes of the report are this number and the error number, native-endian `i32`s.
pub(crate) const STAGE_CHDIR: i32 = 1;
pub(crate) const STAGE_EXEC: i32 = 2;
pub(crate) const STAGE_SETUP: i32 = 3;
pub(crate) const STAGE_LOCK: i32 = 4;

/// Forks; the child leads a process group of its own, has default signals, and executes the program.
pub(crate) fn spawn(image: &Image, descriptors: &Descriptors<'_>) -> Result<Pid, Errno> {
    let pointers =
        |list: &[CString]| -> Vec<*const c_char> { list.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect() };
    let (candidates, args, env) = (pointers(&image.candidates), pointers(&image.args), pointers(&image.env));
    let stdin = descriptors.stdin.as_raw_fd();
    let output = (descriptors.output.0.as_raw_fd(), descriptors.output.1.as_raw_fd());
    let report = descriptors.report.as_raw_fd();
    let paths = Paths { cwd: image.cwd.as_ptr(), lock: image.lock.as_ref().map_or(ptr::null(), |l| l.as_ptr()) };

    // SAFETY: the process has several threads, so the child may only make calls that are async-signal-safe until it
    // executes. `child` makes such calls only, allocates nothing, cannot panic and does not return.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            // Both sides do it: whoever comes first, a kill of the group finds it. Fails once the child has executed.
            let _ = nix::unistd::setpgid(child, child);
            Ok(child)
        }
        ForkResult::Child => {
            // SAFETY: the pointers are NUL-terminated strings and NULL-terminated lists of such, which live in this
            // frame and in `image`; the descriptors are open.
            unsafe { child(&candidates, &args, &env, &paths, stdin, output, report) }
        }
    }
}

/// Where the child goes and what it locks, as it can use them.
struct Paths {
    /// The working directory.
    cwd: *const c_char,
    /// A file to lock, or NULL.
    lock: *const c_char,
}

/// The child between `fork` and `execve`.
///
/// # Safety
/// The lists are NULL-terminated lists of NUL-terminated strings, the paths are such strings or NULL where they may be, the
/// descriptors are open and above 2.
unsafe fn child(
    candidates: &[*const c_char],
    args: &[*const c_char],
    env: &[*const c_char],
    paths: &Paths,
    stdin: c_int,
    output: (c_int, c_int),
    report: c_int,
) -> ! {
    // SAFETY: plain system calls with valid descriptors and the pointers that the caller vouches for; `empty` is
    // written by sigemptyset before it is read; the signal handlers are set to the default action.
    unsafe {
        libc::setpgid(0, 0);
        if libc::dup2(stdin, 0) < 0 || libc::dup2(output.0, 1) < 0 || libc::dup2(output.1, 2) < 0 {
            fail(report, STAGE_SETUP, Errno::last_raw());
        }
        // All are close-on-exec. But a child that hangs before it executes would hold them open: a client's connection
        // would not close, a pipe would not end. Kernels before 5.9 lack the call; then so be it.
        let report_number = report.unsigned_abs();
        libc::syscall(libc::SYS_close_range, 3 as libc::c_uint, report_number.saturating_sub(1), 0 as libc::c_uint);
        libc::syscall(libc::SYS_close_range, report_number + 1, libc::c_uint::MAX, 0 as libc::c_uint);

        // Rust ignores SIGPIPE, a container runtime may ignore others, and the server blocks what it reads from a
        // descriptor; all of that would be inherited.
        for signal in 1..=31 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut empty = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(empty.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), ptr::null_mut());

        if !paths.lock.is_null() {
            // Not close-on-exec: whoever comes of the program shares the lock, and the last to end gives it up. Here and
            // not in the server, which a hung volume must not hang.
            let file = libc::open(paths.lock, libc::O_RDWR | libc::O_CREAT | libc::O_NOFOLLOW, 0o600 as libc::c_uint);
            if file < 0 || libc::flock(file, libc::LOCK_EX | libc::LOCK_NB) < 0 {
                fail(report, STAGE_LOCK, Errno::last_raw());
            }
        }
        if libc::chdir(paths.cwd) < 0 {
            fail(report, STAGE_CHDIR, Errno::last_raw());
        }
        let mut worst = libc::ENOENT;
        for candidate in candidates.iter().take_while(|c| !c.is_null()) {
            libc::execve(*candidate, args.as_ptr(), env.as_ptr());
            // As a shell does: the next directory of PATH, but the reason is the one that is not "not there".
            match Errno::last_raw() {
                libc::ENOENT | libc::ENOTDIR => {}
                error => worst = error,
            }
        }
        fail(report, STAGE_EXEC, worst)
    }
}

/// Reports and ends the child.
///
/// # Safety
/// Only in the child; `report` is open.
unsafe fn fail(report: c_int, stage: i32, error: i32) -> ! {
    let words = [stage, error];
    // SAFETY: the buffer is valid for 8 bytes; _exit runs no destructor or handler of the parent.
    unsafe {
        libc::write(report, words.as_ptr().cast(), size_of_val(&words));
        libc::_exit(127)
    }
}
