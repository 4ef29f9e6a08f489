//! What may happen to a member.

use crate::bench::{Bench, EPOCH, active, elected, epoch, member, name, opened};
use crate::words;
use pgconvoy_ha::{Answer, Ask, Data, Event, Heard, Repair, Server, SwapOutcome, Unreachable};
use pgconvoy_terms::{ChangeId, Lsn, Phase, Position, Term};

pub(crate) struct Case {
    pub(crate) what: &'static str,
    /// Brings it about.
    pub(crate) before: fn(&mut Bench),
    pub(crate) happens: fn(&mut Bench),
}

fn case(what: &'static str, happens: fn(&mut Bench)) -> Case {
    Case { what, before: |_| {}, happens }
}

fn after(before: fn(&mut Bench), what: &'static str, happens: fn(&mut Bench)) -> Case {
    Case { what, before, happens }
}

/// The newest term that everybody may know.
fn term(b: &Bench) -> Term {
    b.term().unwrap_or_else(active)
}

fn not_me(b: &Bench) -> u32 {
    if b.me == 3 { 2 } else { 3 }
}

/// Nobody says anything until the others, asked, say that they hear nothing either.
pub(crate) fn agreed(b: &mut Bench) {
    b.bereft();
    b.silence(3_500, false);
    b.answer(&|_| true);
    b.silence(250, false);
}

/// The leader is gone, and it has the Lease.
pub(crate) fn alone(b: &mut Bench) {
    agreed(b);
    b.answer(&|_| true);
    b.step(Event::Lease(true));
}

fn quiet(b: &mut Bench) {
    b.silence(3_500, false);
}

/// It tries to change the PgTerm.
fn changing(b: &mut Bench) {
    if b.term().is_some_and(|t| t.phase == Phase::Active) && b.me == 1 {
        b.step(Event::Spec(Bench::spec(2, 3)));
    }
    for _ in 0..30 {
        if b.its_change().is_some() {
            return;
        }
        b.silence(250, false);
        b.answer(&|ask| !matches!(ask, Ask::Attach { .. }));
        b.step(Event::Lease(true));
    }
}

fn answered(b: &mut Bench, which: &dyn Fn(&Ask) -> bool, how: &dyn Fn(u32, &Ask) -> Result<Answer, Unreachable>) {
    b.answer_with(which, how);
}

pub(crate) fn all() -> Vec<Case> {
    let mut cases = time();
    cases.extend(register());
    cases.extend(here());
    cases.extend(asked());
    cases.extend(answers());
    cases.extend(people());
    cases
}

fn time() -> Vec<Case> {
    vec![
        case("a second passes", |b| b.silence(1_000, false)),
        case("nobody says anything for 3.5 s", |b| b.silence(3_500, false)),
        case("nobody says anything for 11 s", |b| b.silence(11_000, false)),
    ]
}

fn register() -> Vec<Case> {
    vec![
        case("the PgTerm: another member has opened the next epoch", |b| b.reads(Some(opened(&term(b))), false)),
        case("the PgTerm: another member is elected", |b| {
            let who = not_me(b);
            b.reads(Some(elected(&term(b), who)), false);
        }),
        case("the PgTerm: this member is elected", |b| {
            let me = b.me;
            b.reads(Some(elected(&term(b), me)), false);
        }),
        case("the PgTerm: the epoch is active under another", |b| {
            let who = not_me(b);
            let mut next = elected(&term(b), who);
            next.phase = Phase::Active;
            next.rules.drain(..next.rules.len() - 1);
            b.reads(Some(next), false);
        }),
        case("the PgTerm: put back to what no record descends to", |b| {
            let mut foreign = active();
            foreign.chain = vec![ChangeId::from_random(99)];
            b.reads(Some(foreign), true);
        }),
        case("the PgTerm: deleted, made again at number 0", |b| b.reads(None, true)),
        case("the PgTerm: unchanged, read from a quorum", |b| b.reads(b.term(), true)),
        after(changing, "its change of the PgTerm is done", |b| match b.its_change() {
            Some(register) => b.swapped(SwapOutcome::Won(register)),
            None => b.swapped(words::lost()),
        }),
        after(changing, "somebody else changed the PgTerm first", |b| b.swapped(SwapOutcome::Lost)),
        after(changing, "no answer to its change of the PgTerm", |b| b.swapped(SwapOutcome::Unknown)),
        after(changing, "the API server refuses its change", |b| b.swapped(SwapOutcome::Refused("why".to_owned()))),
        after(agreed, "it gets the Lease", |b| {
            b.answer(&|ask| matches!(ask, Ask::Canvass { .. }));
            b.happens(Event::Lease(true));
        }),
        case("it loses the Lease", |b| b.happens(Event::Lease(false))),
    ]
}

fn here() -> Vec<Case> {
    vec![
        case("the spec: W = 2", |b| b.happens(Event::Spec(Bench::spec(2, 3)))),
        case("the spec: member 3 is to go", |b| b.happens(Event::Spec(Bench::spec(1, 2)))),
        case("PostgreSQL is gone", |b| b.becomes(|l| l.server = Server::Down)),
        case("PostgreSQL answers nothing for 4 s, while its peers do", |b| {
            b.idle(true);
            b.happens(Event::Tick);
            b.friendly(4_000, true);
        }),
        case("its disk takes no log for 10 s", |b| b.becomes(|l| l.stalled = true)),
        case("its volume is empty all at once", |b| {
            b.becomes(|l| (l.data, l.server) = (Data::Empty, Server::Down));
        }),
        case("its PostgreSQL does not hear the leader's any more", Bench::bereft),
        case("the checkpoints are done", |b| b.happens(Event::Checkpointed)),
    ]
}

fn asked() -> Vec<Case> {
    vec![
        case("asked to promise the next epoch", |b| {
            let (who, term) = (not_me(b), opened(&term(b)));
            b.asked(who, Ask::Pledge { term });
            b.silence(1_500, false);
        }),
        case("asked to promise an earlier epoch", |b| {
            let mut term = active();
            term.epoch.number -= 1;
            (term.phase, term.leader) = (Phase::Recruiting, None);
            let who = not_me(b);
            b.asked(who, Ask::Pledge { term });
        }),
        case("asked to store that another is elected", |b| {
            let who = not_me(b);
            let term = elected(&term(b), who);
            b.asked(who, Ask::Store { term });
            b.silence(1_500, false);
        }),
        case("asked by member 1 whether epoch 7 is still its promise", |b| {
            let from = if b.me == 1 { 2 } else { 1 };
            b.asked(from, Ask::Vouch { epoch: epoch(EPOCH), nonce: 5, quorate: true });
        }),
        case("asked whether it hears a leader", |b| {
            let epoch = term(b).epoch;
            let who = not_me(b);
            b.asked(who, Ask::Canvass { epoch });
        }),
        case("asked what it goes by", |b| {
            let who = not_me(b);
            b.asked(who, Ask::Recall {});
        }),
        case("asked by a member that wants to follow", |b| {
            let (who, epoch) = (not_me(b), term(b).epoch);
            let position = Some(Position { timeline: epoch.timeline(), end: Lsn(0x500) });
            b.asked(who, Ask::Attach { epoch, member: member(who), position });
        }),
    ]
}

fn answers() -> Vec<Case> {
    vec![
        case("those it asked have promised", |b| {
            b.answer(&|ask| matches!(ask, Ask::Pledge { .. }));
            b.silence(600, false);
        }),
        case("one that it asked has promised, and does not know its position", |b| {
            answered(b, &|ask| matches!(ask, Ask::Pledge { .. }), &|from, _| {
                Ok(Answer::Pledged { member: Some(member(from)), position: None, unattached: vec![] })
            });
            b.silence(600, false);
        }),
        case("those it asked have stored the term", |b| b.answer(&|ask| matches!(ask, Ask::Store { .. }))),
        after(
            |b| b.silence(1_000, false),
            "its followers say that the epoch is still their promise",
            |b| {
                b.answer(&|ask| matches!(ask, Ask::Vouch { .. }));
            },
        ),
        after(agreed, "the others, asked, hear no leader either", |b| {
            b.answer(&|ask| matches!(ask, Ask::Canvass { .. }));
        }),
        after(quiet, "one of the others, asked, hears a leader", |b| {
            answered(b, &|ask| matches!(ask, Ask::Canvass { .. }), &|from, _| {
                let heard = if from == 3 { Heard::Yes } else { Heard::No };
                Ok(Answer::Canvassed { member: Some(member(from)), heard, able: true, live: true, unattached: vec![] })
            });
        }),
        case("the leader lets it in", |b| b.answer(&|ask| matches!(ask, Ask::Attach { .. }))),
        case("the leader says that its log left its own", |b| {
            answered(b, &|ask| matches!(ask, Ask::Attach { .. }), &|_, _| {
                Ok(Answer::Diverged { timeline: epoch(EPOCH).timeline(), fork: Lsn(0x300) })
            });
        }),
        case("the leader says: not yet", |b| {
            answered(b, &|ask| matches!(ask, Ask::Attach { .. }), &|_, _| Ok(Answer::NotYet));
        }),
        case("whoever it asked refuses, and knows of something later", |b| {
            b.silence(1_000, false);
            answered(b, &|_| true, &|_, _| {
                let head = Some(ChangeId::from_random(77));
                Ok(Answer::Refused { why: "why".to_owned(), head, promised: Some(epoch(40)) })
            });
        }),
        case("nobody listens where it asked", |b| {
            b.silence(1_000, false);
            answered(b, &|_| true, &|_, _| Err(Unreachable::Nobody));
        }),
    ]
}

fn people() -> Vec<Case> {
    vec![
        case("a switchover is asked for", |b| b.happens(Event::HandOver { to: Some(name(2)) })),
        case("a takeover of epoch 7 with `--accept-loss` is asked for", |b| {
            b.happens(Event::TakeOver { epoch: Some(EPOCH), accept_loss: true });
        }),
        after(quiet, "a takeover with `--accept-loss`, after 3.5 s in which nobody said anything", |b| {
            b.happens(Event::TakeOver { epoch: Some(EPOCH), accept_loss: true });
            b.happens(Event::Lease(true));
        }),
        after(quiet, "a takeover without that, after 3.5 s in which nobody said anything", |b| {
            b.happens(Event::TakeOver { epoch: Some(EPOCH), accept_loss: false });
            b.happens(Event::Lease(true));
        }),
        after(
            |b| b.reads(None, true),
            "the PgTerm was deleted, and its repair is asked for",
            |b| {
                b.happens(Event::Repair(Some(Repair { accept_loss: false, adopt: false })));
                b.silence(1_000, false);
                answered(b, &|ask| matches!(ask, Ask::Recall {}), &|from, _| {
                    Ok(Answer::Recalled { member: Some(member(from)), term: Some(active()) })
                });
            },
        ),
        case("its pod is to stop", |b| {
            b.happens(Event::Stop);
            b.silence(500, false);
        }),
    ]
}
