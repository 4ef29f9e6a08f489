//! What each request does.

use crate::{
    connection::ConnectionId,
    deadman::Silent,
    log,
    server::{Postgres, Server},
    tool::Tool,
};
use nix::{errno::Errno, sys::signal::kill};
use pgconvoy_supervisor::{
    clock::Boottime,
    protocol::{
        self, ErrorCode, MAX_TOOLS, Malformed, Message, Permit, Program, Refusal, Request, Response, Signal, Status,
    },
};
use std::time::Duration;

/// The answer to a request; none if it comes later.
type Answer = Result<Option<Response>, Refusal>;

fn refusal(code: ErrorCode, sentence: impl Into<String>) -> Refusal {
    Refusal { code, sentence: sentence.into() }
}

fn silent(Silent: Silent) -> Refusal {
    refusal(
        ErrorCode::System,
        "the timer thread did not take the permission in time: the container gets no CPU. Nothing was started; a \
         permission that was there may have been replaced. Try again",
    )
}

fn no_process(error: Errno) -> Refusal {
    refusal(ErrorCode::System, format!("cannot make a process: {error}; look at the container's limits"))
}

impl Server {
    /// Serves one line of a client.
    pub(crate) fn request(&mut self, from: ConnectionId, line: &[u8], now: Boottime) {
        let answer = match Request::parse(line) {
            Ok(request) => self.handle(request, from, now),
            Err(malformed) => {
                let code =
                    if matches!(malformed, Malformed::TooLong { .. }) { ErrorCode::Long } else { ErrorCode::Malformed };
                Err(refusal(code, malformed.to_string()))
            }
        };
        match answer {
            Ok(Some(response)) => self.answer(from, response),
            Ok(None) => {
                if let Some(connection) = self.connection(from) {
                    connection.awaits = true;
                }
            }
            Err(refusal) => self.answer(from, Response::Error(refusal)),
        }
        self.after(from);
    }

    /// What an answer is followed by.
    fn after(&mut self, from: ConnectionId) {
        let stopping = self.stop.is_some();
        if let Some(connection) = self.connection(from).filter(|c| c.watches_newly) {
            connection.watches_newly = false;
            connection.watches = true;
            if stopping {
                // It came too late for the announcement.
                connection.send(&Message::Event(protocol::Event::Term));
            }
        }
    }

    fn handle(&mut self, request: Request, from: ConnectionId, now: Boottime) -> Answer {
        match request {
            Request::Hello { version } => {
                Ok(Some(Response::Hello { version: version.min(protocol::VERSION), boot: self.started }))
            }
            Request::Status => Ok(Some(Response::Status(self.status()))),
            Request::Start { id, epoch, permit, program } => {
                self.start(&id, epoch, permit, &program, from, now).map(|()| None)
            }
            Request::Run { id, timeout, program, stdin } => {
                self.run_tool(id, timeout, &program, stdin.as_deref(), from, now).map(|()| None)
            }
            Request::Permit { epoch, until } => {
                self.runs_in(&epoch, now)?;
                self.deadman.permit(until).map_err(silent)?;
                Ok(Some(Response::Permit))
            }
            Request::Epoch { from, to, until } => {
                self.runs_in(&from, now)?;
                self.deadman.permit(until).map_err(silent)?;
                log::info("PostgreSQL goes on in another epoch", &[("from", &from), ("to", &to), ("until", &until)]);
                self.epoch = Some(to);
                Ok(Some(Response::Epoch))
            }
            Request::Signal { signal } => self.signal(signal).map(|()| Some(Response::Signal)),
            Request::Fence => {
                self.begin_fence("FENCE", Some(from));
                Ok(None)
            }
            Request::Watch => {
                if let Some(connection) = self.connection(from) {
                    connection.watches_newly = true;
                }
                Ok(Some(Response::Watch))
            }
            Request::Ack => self.acknowledge().map(|()| Some(Response::Ack)),
            Request::Exit => {
                self.exit_asked = true;
                Ok(Some(Response::Exit))
            }
        }
    }

    fn status(&self) -> Status {
        Status {
            postgres: self.postgres.as_ref().map(|p| p.pid.as_raw()),
            epoch: self.epoch.clone(),
            permit: self.deadman.permitted(),
            started: self.postgres.as_ref().map(|p| p.started),
            last_exit: self.last_exit,
            stopping: self.stop.is_some(),
            tools: self.tools.len(),
        }
    }

    /// Nothing may be started, and no permission changed, while everything is being killed.
    fn not_fencing(&self) -> Result<(), Refusal> {
        if self.fence.is_none() && self.deadman.fired().is_none() {
            return Ok(());
        }
        Err(refusal(ErrorCode::Fenced, "everything in this container is being killed; wait for it, then start afresh"))
    }

    fn start(
        &mut self,
        id: &str,
        epoch: String,
        permit: Permit,
        program: &Program,
        from: ConnectionId,
        now: Boottime,
    ) -> Result<(), Refusal> {
        self.not_fencing()?;
        if self.stop.is_some() || self.exit_asked {
            return Err(refusal(
                ErrorCode::Stopping,
                "the container is being stopped; start PostgreSQL in the next one",
            ));
        }
        if let Some(postgres) = &self.postgres {
            let what = if postgres.ended.is_some() { "what it left behind still does" } else { "it is running" };
            let sentence = format!("PostgreSQL was started as process {} and {what}; stop it first", postgres.pid);
            return Err(refusal(ErrorCode::Running, sentence));
        }
        if matches!(permit, Permit::Until(at) if at <= now) {
            let sentence = format!("the permission ended at {permit}, now it is {now}; nothing was started");
            return Err(refusal(ErrorCode::Expired, sentence));
        }
        // Armed before there is anything to kill, and only a thread that answers is trusted to kill it.
        let armed = self.deadman.permit(permit).map_err(silent);
        // The thread may have fired for the last permission until this moment, but not later.
        let armed = armed.and_then(|()| self.not_fencing());
        let launched = armed.and_then(|()| self.launcher.start(program).map_err(no_process));
        let (pid, launch) = launched.inspect_err(|_| self.deadman.disarm())?;
        log::info("starting PostgreSQL", &[("pid", &pid), ("id", &id), ("epoch", &epoch), ("permit", &permit)]);
        self.epoch = Some(epoch);
        self.postgres = Some(Postgres { pid, started: now, launch: Some((launch, from)), ended: None });
        Ok(())
    }

    fn run_tool(
        &mut self,
        id: String,
        timeout: Duration,
        program: &Program,
        stdin: Option<&[u8]>,
        from: ConnectionId,
        now: Boottime,
    ) -> Result<(), Refusal> {
        self.not_fencing()?;
        if self.tools.len() >= MAX_TOOLS {
            let sentence = format!("{MAX_TOOLS} tools are running, which is the most; wait until one has ended");
            return Err(refusal(ErrorCode::Tools, sentence));
        }
        let (pid, launch, pipes) = self.launcher.run(program, stdin).map_err(no_process)?;
        log::info("running a tool", &[("pid", &pid), ("id", &id), ("exec", &program.exec.display())]);
        self.tools.push(Tool::new(id, from, pid, now.after(timeout), launch, pipes));
        Ok(())
    }

    /// Whether PostgreSQL runs in `epoch` with a permission that has not run out.
    fn runs_in(&self, epoch: &str, now: Boottime) -> Result<(), Refusal> {
        if self.postgres.as_ref().is_none_or(|p| p.ended.is_some()) {
            return Err(refusal(ErrorCode::Stopped, "no PostgreSQL is running"));
        }
        self.not_fencing()?;
        if let Some(own) = self.epoch.as_deref().filter(|own| *own != epoch) {
            let sentence = format!("PostgreSQL is running in epoch {own}, not in {epoch}; its permission is unchanged");
            return Err(refusal(ErrorCode::Epoch, sentence));
        }
        match self.deadman.permitted() {
            // It has run out, and the timer thread is about to say so: too late to renew it.
            Some(Permit::Until(at)) if at <= now => {
                Err(refusal(ErrorCode::Expired, format!("the permission ended at {at}, now it is {now}")))
            }
            _ => Ok(()),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Refusal> {
        use nix::sys::signal::Signal as Number;
        let number = match signal {
            Signal::Hup => Number::SIGHUP,
            Signal::Int => Number::SIGINT,
            Signal::Term => Number::SIGTERM,
            Signal::Quit => Number::SIGQUIT,
            Signal::Kill => Number::SIGKILL,
            Signal::Usr1 => Number::SIGUSR1,
        };
        let postgres = self.postgres.as_ref().filter(|p| p.ended.is_none());
        let postgres = postgres.ok_or_else(|| refusal(ErrorCode::Stopped, "no PostgreSQL is running"))?;
        log::info("signalling PostgreSQL", &[("pid", &postgres.pid), ("signal", &signal)]);
        // Not reaped yet, so the number is still its own.
        kill(postgres.pid, number)
            .map_err(|e| refusal(ErrorCode::System, format!("cannot signal process {}: {e}", postgres.pid)))
    }

    fn acknowledge(&mut self) -> Result<(), Refusal> {
        if !self.connections.iter().any(|c| c.watches) {
            let sentence = "no connection watches, so the supervisor could not see the agent go; WATCH first";
            return Err(refusal(ErrorCode::Watch, sentence));
        }
        let Some(stop) = &mut self.stop else {
            return Err(refusal(ErrorCode::Nothing, "nobody has asked this container to stop"));
        };
        if stop.interrupted {
            let sentence = "nobody answered in time, so PostgreSQL is being stopped already";
            return Err(refusal(ErrorCode::Stopping, sentence));
        }
        stop.acknowledged = true;
        log::info("the agent has taken over the stop", &[]);
        Ok(())
    }
}
