//! What follows from a spec alone, and a term that is written reads back the same.

#![allow(clippy::unwrap_used, reason = "to panic is how a test fails")]

use pgconvoy_crds::{EpochRecord, PgReplicaSetSpec, PgTermSpec, TermPhase};
use pgconvoy_terms::{ChangeId, Epoch, Fork, Incarnation, Lsn, MemberId, MemberName, Phase, Rule, Term, TimelineId};
use serde_json::{Value, json};

fn spec(more: &Value) -> PgReplicaSetSpec {
    let mut spec = json!({ "image": "postgres:17", "members": 3, "storage": { "size": "1Gi" } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

#[test]
fn acknowledgements_follow_from_mode_and_members() {
    for (more, acknowledgements) in [
        (json!({}), 1),
        (json!({ "members": 1 }), 0),
        (json!({ "members": 2 }), 1),
        (json!({ "members": 5, "durability": { "acknowledgements": 2 } }), 2),
        (json!({ "members": 5, "durability": { "mode": "quorum" } }), 1),
        (json!({ "members": 5, "durability": { "mode": "async" } }), 0),
        // The API server refuses these; an object made before the rules must still not ask for the impossible.
        (json!({ "members": 2, "durability": { "acknowledgements": 7 } }), 1),
        (json!({ "members": 2, "durability": { "acknowledgements": -1 } }), 0),
        (json!({ "members": 5, "durability": { "mode": "async", "acknowledgements": 2 } }), 0),
        (json!({ "members": -3 }), 0),
    ] {
        assert_eq!(spec(&more).acknowledgements(), acknowledgements, "{more}");
    }
}

#[test]
fn defaults_are_those_the_reference_promises() {
    let bare = spec(&json!({}));
    assert_eq!((bare.uid(), bare.stop_timeout_seconds()), (999, 60));
    let told = spec(&json!({ "runAsUser": 70, "stopTimeoutSeconds": 10 }));
    assert_eq!((told.uid(), told.stop_timeout_seconds()), (70, 10));

    let initdb = |more: &Value| serde_json::to_value(spec(more).initdb()).unwrap();
    assert_eq!(
        initdb(&json!({})),
        json!({ "database": "app", "owner": "app", "dataChecksums": true, "locale": "C.UTF-8", "encoding": "UTF8" })
    );
    let shop =
        json!({ "bootstrap": { "initdb": { "database": "shop", "dataChecksums": false, "locale": "de_DE.UTF-8" } } });
    assert_eq!(
        initdb(&shop),
        json!({ "database": "shop", "owner": "shop", "dataChecksums": false, "locale": "de_DE.UTF-8", "encoding": "UTF8" })
    );
}

fn term(phase: Phase) -> Term {
    let member = |ordinal: u32| MemberId {
        name: MemberName::new("orders", ordinal),
        incarnation: Incarnation::from_random(u128::from(ordinal) * 77_777_777),
    };
    let epoch = |number: u32| Epoch { number, id: ChangeId::from_random(u128::from(number) << 60) };
    Term {
        epoch: epoch(9),
        phase,
        leader: (phase != Phase::Recruiting).then(|| member(2)),
        rules: vec![
            Rule {
                epoch: epoch(5),
                leader: member(1),
                followers: [member(2), member(3)].into_iter().collect(),
                acknowledgements: 1,
            },
            Rule { epoch: epoch(9), leader: member(2), followers: [].into_iter().collect(), acknowledgements: 0 },
        ],
        lossy: false,
        history: vec![
            Fork { epoch: epoch(1), parent: None, at: None, leader: member(1), lossy: false },
            Fork {
                epoch: epoch(5),
                parent: Some(TimelineId(1)),
                at: Some(Lsn(0x16_B374_D848)),
                leader: member(1),
                lossy: true,
            },
        ],
        chain: (1..=9).map(|n| ChangeId::from_random(n * 31)).collect(),
    }
}

#[test]
fn a_term_reads_what_it_writes_also_through_json() {
    for phase in [Phase::Recruiting, Phase::Elected, Phase::Active] {
        let written = PgTermSpec::write("uid-1", &term(phase));
        let over_the_wire: PgTermSpec = serde_json::from_str(&serde_json::to_string(&written).unwrap()).unwrap();
        assert_eq!(over_the_wire, written);
        assert_eq!(over_the_wire.set_uid, "uid-1");
        assert_eq!(over_the_wire.read().unwrap(), Some(term(phase)));
    }
}

#[test]
fn number_zero_is_no_term() {
    let zero = PgTermSpec::zero("uid-1");
    assert_eq!(zero.read().unwrap(), None);
    assert_eq!(serde_json::to_value(&zero).unwrap(), json!({ "setUid": "uid-1", "epoch": { "number": 0 } }));
}

#[test]
fn half_a_term_is_not_taken_for_none() {
    let good = PgTermSpec::write("uid-1", &term(Phase::Active));
    let read = |change: &dyn Fn(&mut PgTermSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec.read()
    };
    assert!(read(&|_| ()).is_ok());
    assert!(read(&|s| s.phase = None).unwrap_err().to_string().contains("phase"));
    assert!(read(&|s| s.epoch.number = 0).unwrap_err().to_string().contains("epoch"));
    assert!(read(&|s| s.epoch.number = -1).is_err());
    assert!(read(&|s| s.epoch.number = 1 << 32).is_err());
    assert!(read(&|s| s.epoch.id = "short".to_owned()).is_err());
    assert!(read(&|s| s.leader = Some("orders-2".to_owned())).is_err());
    assert!(read(&|s| s.chain.push(String::new())).is_err());
    assert!(read(&|s| s.configs[0].acknowledgements = -1).is_err());
    assert!(read(&|s| s.configs[0].followers.push("x".to_owned())).is_err());
    assert!(read(&|s| s.history[1].at = Some("16".to_owned())).is_err());
    let mut zero = PgTermSpec::zero("uid-1");
    zero.phase = Some(TermPhase::Active);
    assert!(zero.read().is_err());
    zero.phase = None;
    zero.chain.push("aaaaaaaaaaaaa".to_owned());
    zero.epoch = EpochRecord { number: 0, id: String::new() };
    assert!(zero.read().is_err());
}
