//! What happens by itself: children end, fences complete, the container stops.

use crate::{connection::ConnectionId, launch::Report, log, server::Server, sys};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{ErrorCode, Event, Exit, Message, Permit, Refusal, Response},
};
use std::time::Duration;

/// Everything is being killed.
pub(crate) struct Fence {
    /// Connections that asked for it and wait for the end.
    waiting: Vec<ConnectionId>,
}

/// The container was asked to stop.
pub(crate) struct Stop {
    asked: Boottime,
    /// The agent stops PostgreSQL.
    pub(crate) acknowledged: bool,
    /// The supervisor has told PostgreSQL to stop.
    pub(crate) interrupted: bool,
    /// Since when nothing is left to stop.
    idle_since: Option<Boottime>,
}

impl Stop {
    /// When the supervisor acts if nobody else does.
    pub(crate) fn deadline(&self, timeout: Duration) -> Option<Boottime> {
        let since = self.idle_since.or_else(|| (!self.acknowledged && !self.interrupted).then_some(self.asked));
        since.map(|t| t.after(timeout))
    }
}

impl Server {
    /// Takes what launches report and tools write.
    pub(crate) fn hear_children(&mut self) {
        if let Some(postgres) = &mut self.postgres
            && let Some((launch, waiting)) = postgres.launch.take()
        {
            let pid = postgres.pid.as_raw();
            match launch.report() {
                Report::Pending => postgres.launch = Some((launch, waiting)),
                // Killed before it could execute; the end of the fence answers.
                Report::Executed if self.fence.is_some() => postgres.launch = Some((launch, waiting)),
                Report::Executed => self.answer(waiting, Response::Start { pid }),
                Report::Failed(sentence) => {
                    log::warn("PostgreSQL could not be started", &[("error", &sentence)]);
                    self.postgres = None;
                    self.deadman.disarm();
                    self.answer(waiting, Response::Error(Refusal { code: ErrorCode::Exec, sentence }));
                }
            }
        }
        let mut failed = Vec::new();
        for index in 0..self.tools.len() {
            let tool = &mut self.tools[index];
            tool.out.drain();
            tool.err.drain();
            let Some(launch) = tool.launch.take() else { continue };
            let (pid, owner) = (tool.pid, tool.owner);
            match launch.report() {
                Report::Pending => tool.launch = Some(launch),
                Report::Executed => self.answer_owner(owner, Response::Run { pid: pid.as_raw() }),
                Report::Failed(sentence) => {
                    failed.push(pid);
                    self.answer_owner(owner, Response::Error(Refusal { code: ErrorCode::Exec, sentence }));
                }
            }
        }
        self.tools.retain(|t| !failed.contains(&t.pid));
    }

    fn answer_owner(&mut self, owner: Option<ConnectionId>, response: Response) {
        if let Some(owner) = owner {
            self.answer(owner, response);
        }
    }

    /// Takes every child that has ended: PostgreSQL, tools, and orphans, which are nobody's business.
    pub(crate) fn reap(&mut self) {
        while let Some((pid, exit)) = sys::reap() {
            // First what they said last, among it the report of a launch that failed: then it never ran.
            self.hear_children();
            match self.postgres.as_mut().filter(|p| p.pid == pid) {
                Some(postgres) => postgres.ended = Some(exit),
                None => self.finish_tool(pid, exit),
            }
        }
    }

    fn finish_tool(&mut self, pid: Pid, exit: Exit) {
        let Some(index) = self.tools.iter().position(|t| t.pid == pid) else { return };
        let mut tool = self.tools.swap_remove(index);
        log::info("a tool has ended", &[("pid", &pid), ("id", &tool.id), ("exit", &exit)]);
        let done = tool.finish(exit);
        if let Some(connection) = tool.owner.and_then(|owner| self.connection(owner)) {
            connection.send(&Message::Done(done));
        }
    }

    /// Starts to kill everything. Idempotent; `waiting` is answered at the end.
    pub(crate) fn begin_fence(&mut self, why: &str, waiting: Option<ConnectionId>) {
        let fence = self.fence.get_or_insert_with(|| {
            log::warn("killing every process of this container", &[("why", &why)]);
            Fence { waiting: Vec::new() }
        });
        fence.waiting.extend(waiting);
        self.deadman.kill_now();
        self.namespace.kill_all();
    }

    /// Moves on whatever is under way.
    pub(crate) fn advance(&mut self, now: Boottime) {
        if self.fence.is_none()
            && let Some(fired) = self.deadman.fired()
        {
            let late = match self.deadman.permitted() {
                Some(Permit::Until(at)) => fired.0.saturating_sub(at.0),
                _ => 0,
            };
            log::warn("the permission has run out", &[("late_ms", &late)]);
            self.begin_fence("the permission has run out", None);
        }
        if self.fence.is_some() {
            self.advance_fence();
        } else if let Some(exit) = self.postgres.as_ref().and_then(|p| p.ended) {
            self.sweep(exit);
        }
        self.advance_stop(now);
    }

    fn advance_fence(&mut self) {
        self.namespace.kill_all();
        self.reap();
        let ended = self.postgres.as_ref().is_none_or(|p| p.ended.is_some()) && self.tools.is_empty();
        if !ended || self.namespace.anything_runs() || self.deadman.stand_down().is_err() {
            return;
        }
        let at = Boottime::now();
        let waiting = self.fence.take().map(|f| f.waiting).unwrap_or_default();
        let postgres = self.postgres.take();
        log::warn("nothing is left in this container", &[("at", &at), ("postgres", &postgres.is_some())]);
        self.announce(Event::Fenced { at });
        if let Some(postgres) = postgres {
            self.last_exit = Some(Exit::Fenced);
            self.announce(Event::Exit { exit: Exit::Fenced });
            if let Some((_, starter)) = postgres.launch {
                let sentence = "everything in this container was killed while PostgreSQL was being started".to_owned();
                self.answer(starter, Response::Error(Refusal { code: ErrorCode::Fenced, sentence }));
            }
        }
        waiting.into_iter().for_each(|id| self.answer(id, Response::Fence));
    }

    /// PostgreSQL's first process has ended. When it did not end well its children live on: a backend acknowledges
    /// commits for seconds. They end here, and only then PostgreSQL counts as gone.
    fn sweep(&mut self, exit: Exit) {
        let left = match self.namespace.orphans() {
            Some(orphans) => {
                let strays = orphans.iter().filter(|pid| !self.tools.iter().any(|t| t.pid == **pid));
                strays.filter(|pid| kill(**pid, Signal::SIGKILL).is_ok()).count() > 0
            }
            // Without /proc there is no telling whose a process is.
            None => self.namespace.kill_all(),
        };
        if left {
            return;
        }
        let Some(postgres) = self.postgres.take() else { return };
        self.deadman.disarm();
        self.last_exit = Some(exit);
        log::info("PostgreSQL has ended", &[("pid", &postgres.pid), ("exit", &exit)]);
        if let Some((_, starter)) = postgres.launch {
            self.answer(starter, Response::Start { pid: postgres.pid.as_raw() });
        }
        self.announce(Event::Exit { exit });
    }

    /// A signal asked the container to stop.
    pub(crate) fn asked_to_stop(&mut self, signal: Signal, now: Boottime) {
        if self.stop.is_some() {
            return;
        }
        log::info("asked to stop", &[("signal", &signal)]);
        self.stop = Some(Stop { asked: now, acknowledged: false, interrupted: false, idle_since: None });
        self.announce(Event::Term);
    }

    fn agent_stops(&self) -> bool {
        self.stop.as_ref().is_some_and(|s| s.acknowledged) && self.connections.iter().any(|c| c.watches)
    }

    fn advance_stop(&mut self, now: Boottime) {
        let agent_stops = self.agent_stops();
        let busy = self.postgres.is_some() || !self.tools.is_empty();
        let Some(stop) = &mut self.stop else { return };
        if busy {
            stop.idle_since = None;
        } else {
            stop.idle_since.get_or_insert(now);
        }
        let Some(postgres) = self.postgres.as_ref().filter(|p| p.ended.is_none()) else { return };
        // Also when nobody watches: an agent that is just being restarted may be back in time.
        let unanswered = !stop.acknowledged && stop.asked.after(self.stop_timeout) <= now;
        let abandoned = stop.acknowledged && !agent_stops;
        if (unanswered || abandoned) && !stop.interrupted {
            stop.interrupted = true;
            let why = if abandoned { "the agent has gone" } else { "no agent has answered" };
            log::warn("stopping PostgreSQL (fast)", &[("why", &why), ("pid", &postgres.pid)]);
            let _ = kill(postgres.pid, Signal::SIGINT);
        }
    }

    /// Whether this process may end, which ends everything in the container.
    pub(crate) fn may_leave(&self, now: Boottime) -> bool {
        if self.postgres.is_some() || self.fence.is_some() {
            return false;
        }
        if self.exit_asked {
            return true;
        }
        let Some(stop) = &self.stop else { return false };
        let over = stop.asked.after(self.stop_timeout) <= now;
        if self.agent_stops() {
            // It may want to look at what it stopped (`pg_controldata`), and says `EXIT` when it has. It does not have
            // for ever.
            return stop.idle_since.is_some_and(|t| t.after(self.stop_timeout) <= now);
        }
        self.tools.is_empty() || over
    }
}
