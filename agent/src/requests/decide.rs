//! What is to be done about the requests that are not ended. Pure.
//!
//! A switchover is taken up by the leader, which writes that down before anything else: the next leader then knows that it is
//! what came of the request, and does not hand over in its turn.

use jiff::{Timestamp, ToSpan};
use pgconvoy_crds::{PgRequestSpec, PgRequestStatus, Repair, RequestState, Switchover, Takeover};
use pgconvoy_terms::{MemberName, Phase, Term};

/// How old a request may be that nobody has taken up, in minutes. Short: a set that is down misses it. Long: what a person
/// asked for long ago, perhaps of another set of this name, is done out of the blue.
const FRESH: i64 = 10;
/// How long a request that was taken up may take, in minutes: two checkpoints, the stop and the election, amply.
const LIMIT: i64 = 3;
/// How long a member that knows better has to say so before a request is refused, in seconds. Short: one that reads the register
/// just now is not waited for. Long: whoever asks for what is not to be had waits as long for that answer.
const ANSWER: i64 = 6;

/// A request as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub made: Timestamp,
    /// What is asked for.
    pub spec: PgRequestSpec,
    /// What came of it so far.
    pub status: PgRequestStatus,
}

/// How this member stands.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// This member.
    pub me: &'a MemberName,
    /// The term it acted on last.
    pub term: Option<&'a Term>,
    /// Whether it leads and lets clients in.
    pub serving: bool,
    /// Whether the register is known not to be what this member goes by.
    pub trouble: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Write this into the request's status.
    Write {
        /// The request.
        name: String,
        /// Its status.
        status: PgRequestStatus,
    },
    /// Hand over leadership, for this request.
    HandOver {
        /// The request.
        name: String,
        /// To whom, if somebody is wished for.
        to: Option<MemberName>,
    },
    /// End this epoch, for this request.
    TakeOver {
        /// The request.
        name: String,
        /// The epoch's number.
        epoch: u32,
        /// Whether what only members hold that are gone is given up.
        accept_loss: bool,
    },
    /// Make the register again from the members' records, for this request.
    Repair {
        /// The request.
        name: String,
        /// Whether what only members hold that cannot be asked is given up.
        accept_loss: bool,
    },
}

/// What follows from the oldest request that has not ended: one is done after the other.
pub fn decide(requests: &[Seen], view: &View<'_>, now: Timestamp) -> Option<Deed> {
    let ended = |r: &&Seen| r.status.state.is_some_and(RequestState::ended);
    let request = requests.iter().filter(|r| !ended(r)).min_by_key(|r| (r.made, &r.name))?;
    let decision = Decision { request, view, now };
    match (&request.spec.switchover, &request.spec.takeover, &request.spec.repair) {
        (Some(wish), None, None) => decision.switchover(wish),
        (None, Some(takeover), None) => decision.takeover(takeover),
        (None, None, Some(repair)) => decision.repair(repair),
        _ => decision.fail_if_leading("it does not ask for one deed: switchover, takeover or repair".to_owned()),
    }
}

struct Decision<'a> {
    request: &'a Seen,
    view: &'a View<'a>,
    now: Timestamp,
}

impl Decision<'_> {
    fn leads(&self) -> Option<&Term> {
        self.view.term.filter(|t| {
            self.view.serving && t.phase == Phase::Active && t.leader.as_ref().is_some_and(|l| l.name == *self.view.me)
        })
    }

    fn switchover(&self, wish: &Switchover) -> Option<Deed> {
        let term = self.leads()?;
        let me = self.view.me;
        let to = match wish.to.as_deref().map(str::parse::<MemberName>) {
            None => None,
            Some(Ok(to)) if to.set() == me.set() => Some(to),
            Some(_) => {
                let what = wish.to.as_deref().unwrap_or_default();
                return Some(self.failed(format!("{what} is not a member of {}", me.set())));
            }
        };
        let number = i64::from(term.epoch.number);
        let Some(taken_up) = self.request.status.epoch.filter(|_| self.request.status.state.is_some()) else {
            if to.as_ref() == Some(me) {
                return Some(self.complete(format!("{me} leads epoch {number} already")));
            }
            if self.older_than(self.request.made, FRESH) {
                return Some(self.failed(format!("no leader could take it up within {FRESH} minutes; make another")));
            }
            return Some(self.running(number, Some(me), "a checkpoint is made, then the leader stops".to_owned()));
        };
        if taken_up == number {
            if self.took_too_long() {
                return Some(self.failed(format!("{me} still leads epoch {number} after {LIMIT} minutes")));
            }
            return Some(Deed::HandOver { name: self.request.name.clone(), to });
        }
        let before = self.request.status.leader.as_deref().unwrap_or("another member");
        Some(match &to {
            _ if before == me.to_string() => {
                self.failed(format!("nobody took over in time: {me} leads again, in epoch {number}"))
            }
            Some(to) if to != me => self.failed(format!(
                "{me} leads epoch {number}, after {before}, and not {to}: it had not received everything when {before} stopped"
            )),
            _ => self.complete(format!("{me} leads epoch {number}, after {before}")),
        })
    }

    fn takeover(&self, takeover: &Takeover) -> Option<Deed> {
        let term = self.view.term?;
        let number = i64::from(term.epoch.number);
        let stands = u32::try_from(takeover.epoch).ok().filter(|epoch| term.none_active_since(*epoch));
        let taken_up = self.request.status.state.is_some();
        let Some(epoch) = stands else {
            if taken_up && number > takeover.epoch {
                let me = self.leads()?.leader.as_ref()?.name.clone();
                let lossy = term.history.last().is_some_and(|f| f.lossy);
                let loss = if lossy { "; commits that only lost members had are lost" } else { "" };
                return Some(self.complete(format!("{me} leads epoch {number}{loss}")));
            }
            let why = format!("it is for epoch {}, and this is epoch {number}", takeover.epoch);
            // Said by the leader. Where none is there, by whoever knows a later epoch; one that knows none may be behind.
            let late = number > takeover.epoch && self.late();
            return if late { Some(self.failed(why)) } else { self.fail_if_leading(why) };
        };
        if !taken_up {
            if self.older_than(self.request.made, FRESH) {
                return Some(self.failed(format!("no member could take it up within {FRESH} minutes; make another")));
            }
            let leader = term.leader.as_ref().map(|l| &l.name);
            return Some(self.running(number, leader, "members that are left are asked what they have".to_owned()));
        }
        if self.took_too_long() {
            let without = "nobody leads without --accept-loss who may lack what was acknowledged; ";
            let why = format!(
                "no member could lead within {LIMIT} minutes; {}kubectl pgconvoy why {} tells more",
                if takeover.accept_loss { "" } else { without },
                self.view.me.set()
            );
            return Some(self.failed(why));
        }
        let accept_loss = takeover.accept_loss;
        Some(Deed::TakeOver { name: self.request.name.clone(), epoch, accept_loss })
    }

    fn repair(&self, repair: &Repair) -> Option<Deed> {
        let term = self.view.term?;
        let number = i64::from(term.epoch.number);
        let Some(taken_up) = self.request.status.epoch.filter(|_| self.request.status.state.is_some()) else {
            if self.older_than(self.request.made, FRESH) {
                return Some(self.failed(format!("no member could take it up within {FRESH} minutes; make another")));
            }
            if self.view.trouble {
                let leader = term.leader.as_ref().map(|l| &l.name);
                return Some(self.running(number, leader, "members are asked what they go by".to_owned()));
            }
            // Another member may know better; it has had the time to say so.
            let why = format!("there is nothing to repair: the members go by the PgTerm as it is, in epoch {number}");
            return if self.late() { self.fail_if_leading(why) } else { None };
        };
        if number > taken_up && !self.view.trouble {
            let me = self.leads()?.leader.as_ref()?.name.clone();
            let lossy = term.history.last().is_some_and(|f| f.lossy);
            let loss = if lossy { "; commits that only members had who could not be asked are lost" } else { "" };
            return Some(self.complete(format!("the PgTerm is made again; {me} leads epoch {number}{loss}")));
        }
        if self.took_too_long() {
            let why = format!(
                "the set did not come back within {LIMIT} minutes; kubectl pgconvoy status {} tells more",
                self.view.me.set()
            );
            return Some(self.failed(why));
        }
        let accept_loss = repair.accept_loss;
        self.view.trouble.then(|| Deed::Repair { name: self.request.name.clone(), accept_loss })
    }

    /// Whether whoever knows best has had the time to say so.
    fn late(&self) -> bool {
        self.request.made.checked_add(ANSWER.seconds()).is_ok_and(|limit| limit < self.now)
    }

    fn older_than(&self, since: Timestamp, minutes: i64) -> bool {
        since.checked_add(minutes.minutes()).is_ok_and(|limit| limit < self.now)
    }

    fn took_too_long(&self) -> bool {
        let started = self.request.status.started_at.as_deref().and_then(|t| t.parse().ok());
        started.is_some_and(|at| self.older_than(at, LIMIT))
    }

    fn fail_if_leading(&self, why: String) -> Option<Deed> {
        self.leads().map(|_| self.failed(why))
    }

    fn running(&self, epoch: i64, leader: Option<&MemberName>, message: String) -> Deed {
        self.write(PgRequestStatus {
            state: Some(RequestState::Running),
            message: Some(message),
            epoch: Some(epoch),
            leader: leader.map(ToString::to_string),
            started_at: Some(written(self.now)),
            finished_at: None,
        })
    }

    fn complete(&self, message: String) -> Deed {
        self.end(RequestState::Complete, message)
    }

    fn failed(&self, message: String) -> Deed {
        self.end(RequestState::Failed, message)
    }

    fn end(&self, state: RequestState, message: String) -> Deed {
        self.write(ended(self.request, state, message, self.now))
    }

    fn write(&self, status: PgRequestStatus) -> Deed {
        Deed::Write { name: self.request.name.clone(), status }
    }
}

/// The status of a request that has ended.
pub(super) fn ended(request: &Seen, state: RequestState, message: String, now: Timestamp) -> PgRequestStatus {
    PgRequestStatus {
        state: Some(state),
        message: Some(message),
        finished_at: Some(written(now)),
        ..request.status.clone()
    }
}

fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
