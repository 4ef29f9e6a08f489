//! The dead-man: a thread that kills everything when the permission runs out.
//!
//! It reads two atomics, a clock and a timer descriptor. It takes no lock, allocates nothing after start, logs nothing
//! and waits for no other thread; what it needs is locked in memory where that is allowed.

use crate::{namespace::Namespace, sys};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use pgconvoy_supervisor::{clock::Boottime, protocol::Permit};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const NONE: u64 = u64::MAX;
const FOREVER: u64 = u64::MAX - 1;
const NOW: u64 = 0;

/// How long the thread may take to take a new permission. It sleeps in a system call that a write ends, so it is slower
/// only when the container gets no CPU.
const PATIENCE: Duration = Duration::from_millis(500);

struct Shared {
    namespace: Namespace,
    /// Milliseconds of CLOCK_BOOTTIME after which nothing may run, or one of the constants.
    until: AtomicU64,
    /// Counts the changes of `until`.
    generation: AtomicU64,
    /// The generation that the thread acts on.
    seen: AtomicU64,
    /// When it began to kill; 0 = it did not.
    fired: AtomicU64,
    /// Wakes the thread.
    wake: EventFd,
    /// Tells the server that `seen` has changed.
    taken: EventFd,
    /// Tells the server that it fired.
    bell: EventFd,
    timer: TimerFd,
}

/// The server's handle on the thread.
pub(crate) struct DeadMan(&'static Shared);

/// The thread did not take a new permission in time.
#[derive(Debug)]
pub(crate) struct Silent;

impl DeadMan {
    /// Starts the thread, with nothing to watch.
    pub(crate) fn start(namespace: Namespace) -> io::Result<Self> {
        let event = || EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        // Lives as long as the process; leaked so that neither thread can free it under the other.
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            namespace,
            until: AtomicU64::new(NONE),
            generation: AtomicU64::new(0),
            seen: AtomicU64::new(u64::MAX),
            fired: AtomicU64::new(0),
            wake: event()?,
            taken: event()?,
            bell: event()?,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?,
        }));
        thread::Builder::new().name("dead-man".into()).stack_size(64 * 1024).spawn(move || watch(shared))?;
        let deadman = Self(shared);
        deadman.settle().map_err(|Silent| io::Error::from(io::ErrorKind::TimedOut))?;
        Ok(deadman)
    }

    /// Sets the permission, and returns when the thread has taken it: whatever it was doing under an older one is over.
    pub(crate) fn permit(&self, permit: Permit) -> Result<(), Silent> {
        self.store(match permit {
            Permit::Forever => FOREVER,
            Permit::Until(at) => at.0.min(FOREVER - 1),
        });
        self.settle()
    }

    /// Nothing runs that needs a permission. Does not wait: the next [`Self::permit`] does.
    pub(crate) fn disarm(&self) {
        self.store(NONE);
    }

    /// Kill now, and again until [`Self::stand_down`]. Does not wait.
    pub(crate) fn kill_now(&self) {
        self.store(NOW);
    }

    /// The killing is done.
    pub(crate) fn stand_down(&self) -> Result<(), Silent> {
        self.store(NONE);
        self.settle()?;
        // Only now: before, the thread might have been about to say it again.
        self.0.fired.store(0, Ordering::Release);
        Ok(())
    }

    /// The permission, if something needs one.
    pub(crate) fn permitted(&self) -> Option<Permit> {
        match self.0.until.load(Ordering::Acquire) {
            NONE => None,
            FOREVER => Some(Permit::Forever),
            at => Some(Permit::Until(Boottime(at))),
        }
    }

    /// When the thread began to kill, if it did.
    pub(crate) fn fired(&self) -> Option<Boottime> {
        Some(self.0.fired.load(Ordering::Acquire)).filter(|at| *at != 0).map(Boottime)
    }

    /// Becomes readable when the thread fires.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }

    /// Makes the bell unreadable again.
    pub(crate) fn silence_bell(&self) {
        let _ = self.0.bell.read();
    }

    fn store(&self, until: u64) {
        self.0.until.store(until, Ordering::Release);
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        let _ = self.0.wake.write(1);
    }

    fn settle(&self) -> Result<(), Silent> {
        let (wanted, begun) = (self.0.generation.load(Ordering::Acquire), Instant::now());
        while self.0.seen.load(Ordering::Acquire) != wanted {
            let left = PATIENCE.checked_sub(begun.elapsed()).ok_or(Silent)?;
            let mut fds = [PollFd::new(self.0.taken.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
            let _ = self.0.taken.read();
        }
        Ok(())
    }
}

/// The thread.
fn watch(shared: &Shared) {
    // Without it the thread is as late as any other on a busy machine; there is nothing to be done about it here.
    sys::hurry();
    let mut pause: u8 = 1;
    loop {
        let generation = shared.generation.load(Ordering::Acquire);
        let until = shared.until.load(Ordering::Acquire);
        let now = Boottime::now().0;
        let mut fds =
            [PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN), PollFd::new(shared.timer.as_fd(), PollFlags::POLLIN)];
        let (sources, timeout) = if until <= now {
            if shared.fired.load(Ordering::Acquire) == 0 {
                shared.fired.store(now.max(1), Ordering::Release);
            }
            shared.namespace.kill_all();
            let _ = shared.bell.write(1);
            // Again and again until the server says that nothing is left; slower with time, in case it hangs.
            let timeout = PollTimeout::from(pause);
            pause = (pause * 2).min(20);
            (&mut fds[..1], timeout)
        } else {
            pause = 1;
            (&mut fds[..], arm(&shared.timer, until, now))
        };
        if shared.seen.swap(generation, Ordering::AcqRel) != generation {
            let _ = shared.taken.write(1);
        }
        // An error (EINTR) means: look again.
        let _ = poll(sources, timeout);
        let _ = shared.wake.read();
    }
}

/// Sets the timer, and says how long to sleep at most. The timer is exact and counts suspended time, which the time-out
/// of `poll` does not; the time-out looks again once a second even if nobody could wake this thread.
fn arm(timer: &TimerFd, until: u64, now: u64) -> PollTimeout {
    if until >= FOREVER {
        let _ = timer.unset();
        return PollTimeout::NONE;
    }
    let at = TimeSpec::from_duration(Duration::from_millis(until));
    let _ = timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME);
    PollTimeout::from(u16::try_from(until - now).unwrap_or(1000).min(1000))
}
