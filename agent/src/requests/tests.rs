use super::*;
use jiff::{SignedDuration, Timestamp};
use pgconvoy_crds::{PgRequestSpec, PgRequestStatus, Repair, RequestState, Switchover, Takeover};
use pgconvoy_terms::{ChangeId, Epoch, Fork, Incarnation, MemberId, MemberName, Phase, Term};

fn member(n: u32) -> MemberName {
    MemberName::new("orders", n)
}

fn term(number: u32, leader: u32, phase: Phase) -> Term {
    let id = MemberId { name: member(leader), incarnation: Incarnation::from_random(1) };
    let epoch = |number: u32| Epoch { number, id: ChangeId::from_random(number.into()) };
    Term {
        epoch: epoch(number),
        phase,
        leader: Some(id.clone()),
        rules: vec![],
        lossy: false,
        history: vec![Fork { epoch: epoch(number), parent: None, at: None, leader: id, lossy: true }],
        chain: vec![],
    }
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn switchover(to: Option<u32>) -> Seen {
    let wish = Switchover { to: to.map(|n| member(n).to_string()) };
    Seen {
        name: "r".into(),
        made: now(),
        spec: PgRequestSpec { set: "orders".into(), switchover: Some(wish), takeover: None, repair: None },
        status: PgRequestStatus::default(),
    }
}

fn takeover(epoch: i64) -> Seen {
    let spec = PgRequestSpec {
        set: "orders".into(),
        switchover: None,
        takeover: Some(Takeover { epoch, accept_loss: false }),
        repair: None,
    };
    Seen { spec, ..switchover(None) }
}

/// What `member` does about `request` where `leader` leads `epoch`.
fn at(request: &Seen, me: u32, epoch: u32, leader: u32) -> Option<Deed> {
    let (me, term) = (member(me), term(epoch, leader, Phase::Active));
    let serving = me == member(leader);
    decide(std::slice::from_ref(request), &View { me: &me, term: Some(&term), serving, trouble: false }, now())
}

fn written(deed: Option<Deed>) -> PgRequestStatus {
    let Some(Deed::Write { status, .. }) = deed else { panic!("{deed:?}") };
    status
}

#[test]
fn a_switchover_is_written_down_then_done_then_judged_by_the_next_leader() {
    let mut request = switchover(None);
    assert_eq!(at(&request, 2, 7, 1), None, "a follower took it up");
    request.status = written(at(&request, 1, 7, 1));
    assert_eq!((request.status.state, request.status.epoch), (Some(RequestState::Running), Some(7)));
    assert_eq!(at(&request, 1, 7, 1), Some(Deed::HandOver { name: "r".into(), to: None }));
    let end = written(at(&request, 3, 8, 3));
    assert_eq!(end.state, Some(RequestState::Complete));
    assert_eq!(end.message.as_deref(), Some("orders-3 leads epoch 8, after orders-1"));
    request.status = end;
    assert_eq!(at(&request, 3, 8, 3), None, "done twice");
}

#[test]
fn a_switchover_that_did_not_come_out_as_wished_says_so() {
    let mut request = switchover(Some(2));
    request.status = written(at(&request, 1, 7, 1));
    let end = written(at(&request, 3, 8, 3));
    assert_eq!(end.state, Some(RequestState::Failed));
    assert!(end.message.unwrap().contains("and not orders-2"));
    let end = written(at(&request, 1, 8, 1));
    assert!(end.state == Some(RequestState::Failed) && end.message.unwrap().contains("leads again"));
    assert_eq!(written(at(&request, 2, 8, 2)).state, Some(RequestState::Complete));
}

#[test]
fn a_wish_that_is_fulfilled_or_nonsense_moves_nothing() {
    assert_eq!(written(at(&switchover(Some(1)), 1, 7, 1)).state, Some(RequestState::Complete));
    let mut other = switchover(None);
    other.spec.switchover = Some(Switchover { to: Some("payments-2".into()) });
    assert_eq!(written(at(&other, 1, 7, 1)).message.as_deref(), Some("payments-2 is not a member of orders"));
}

#[test]
fn an_old_request_is_not_done_out_of_the_blue() {
    let mut request = switchover(None);
    request.made = now() - SignedDuration::from_mins(11);
    assert_eq!(written(at(&request, 1, 7, 1)).state, Some(RequestState::Failed));
    // Nor is one that was taken up pursued for ever.
    let mut request = switchover(None);
    request.status = written(at(&request, 1, 7, 1));
    request.status.started_at = Some("2026-01-01T11:50:00Z".into());
    assert_eq!(written(at(&request, 1, 7, 1)).state, Some(RequestState::Failed));
}

#[test]
fn a_takeover_is_for_one_epoch() {
    let mut request = takeover(7);
    let end = written(at(&request, 1, 8, 1));
    assert_eq!(end.message.as_deref(), Some("it is for epoch 7, and this is epoch 8"));
    assert_eq!(at(&request, 2, 8, 1), None, "said by all");
    request.status = written(at(&request, 2, 7, 1));
    assert_eq!(request.status.state, Some(RequestState::Running));
    assert_eq!(at(&request, 3, 7, 1), Some(Deed::TakeOver { name: "r".into(), epoch: 7, accept_loss: false }));
    request.spec.takeover = Some(Takeover { epoch: 7, accept_loss: true });
    let deed = Deed::TakeOver { name: "r".into(), epoch: 7, accept_loss: true };
    assert_eq!(at(&request, 3, 7, 1), Some(deed));
    let end = written(at(&request, 2, 8, 2));
    assert_eq!(end.state, Some(RequestState::Complete));
    assert!(end.message.unwrap().contains("are lost"));
}

/// Members that cannot agree go on opening epochs while a person reads the status and types: the decision is about what stood
/// then, and still stands.
#[test]
fn a_takeover_holds_for_epochs_opened_since_that_never_became_active() {
    let mut request = takeover(7);
    let at = |request: &Seen, epoch: u32, active: u32, now: Timestamp| {
        let mut opened = term(active, 1, Phase::Recruiting);
        opened.epoch.number = epoch;
        opened.leader = None;
        let me = member(2);
        let view = View { me: &me, term: Some(&opened), serving: false, trouble: false };
        decide(std::slice::from_ref(request), &view, now)
    };
    let status = written(at(&request, 9, 7, now()));
    assert_eq!(status.state, Some(RequestState::Running));
    request.status = status;
    let deed = Some(Deed::TakeOver { name: "r".into(), epoch: 7, accept_loss: false });
    assert_eq!(at(&request, 9, 7, now()), deed);
    assert_eq!(at(&request, 10, 6, now()), deed);
    // It ends in any case.
    let end = written(at(&request, 30, 7, now() + SignedDuration::from_mins(4)));
    assert!(end.state == Some(RequestState::Failed) && end.message.unwrap().contains("no member could lead"));
    // Nobody leads who could say that it is about something else.
    let request = takeover(5);
    assert_eq!(at(&request, 9, 7, now()), None);
    let end = written(at(&request, 9, 7, now() + SignedDuration::from_secs(7)));
    assert_eq!(end.message.as_deref(), Some("it is for epoch 5, and this is epoch 9"));
    // A member that has not heard of the epoch may be behind.
    assert_eq!(at(&takeover(10), 9, 7, now() + SignedDuration::from_secs(7)), None);
}

#[test]
fn the_oldest_goes_first() {
    let (mut first, mut second) = (switchover(None), switchover(Some(2)));
    first.made = now() - SignedDuration::from_mins(1);
    second.name = "a".into();
    let (me, term) = (member(1), term(7, 1, Phase::Active));
    let view = View { me: &me, term: Some(&term), serving: true, trouble: false };
    let Some(Deed::Write { name, .. }) = decide(&[second, first], &view, now()) else { panic!() };
    assert_eq!(name, "r");
}

fn repair() -> Seen {
    let spec =
        PgRequestSpec { set: "orders".into(), switchover: None, takeover: None, repair: Some(Repair::default()) };
    Seen { spec, ..switchover(None) }
}

#[test]
fn a_repair_is_done_by_who_sees_the_trouble_and_judged_by_the_next_leader() {
    let (me, term) = (member(2), term(7, 1, Phase::Active));
    let troubled = View { me: &me, term: Some(&term), serving: false, trouble: true };
    let mut request = repair();
    request.status = written(decide(std::slice::from_ref(&request), &troubled, now()));
    assert_eq!((request.status.state, request.status.epoch), (Some(RequestState::Running), Some(7)));
    let deed = decide(std::slice::from_ref(&request), &troubled, now());
    assert_eq!(deed, Some(Deed::Repair { name: "r".into(), accept_loss: false }));
    assert_eq!(at(&request, 1, 7, 1), None, "one that sees no trouble did something");
    let end = written(at(&request, 2, 8, 2));
    assert_eq!(end.state, Some(RequestState::Complete));
    assert!(end.message.unwrap().starts_with("the PgTerm is made again; orders-2 leads epoch 8"));
}

#[test]
fn a_healthy_term_is_not_repaired() {
    let mut request = repair();
    assert_eq!(at(&request, 1, 7, 1), None, "nobody was given the time to see trouble");
    request.made = now() - SignedDuration::from_secs(7);
    assert_eq!(at(&request, 2, 7, 1), None, "said by all");
    let end = written(at(&request, 1, 7, 1));
    assert_eq!(end.state, Some(RequestState::Failed));
    assert!(end.message.unwrap().contains("nothing to repair"));
}
