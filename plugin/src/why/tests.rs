use super::{next, past};
use crate::objects::Objects;
use crate::status::model::report;
use crate::status::tests::{no_leader, running};
use k8s_openapi::api::core::v1::Event;

fn told(objects: &Objects) -> String {
    let term = objects.term.as_ref().unwrap().spec.read().unwrap();
    next::tell(&report(objects), term.as_ref()).join("\n")
}

#[test]
fn a_set_that_is_well_would_have_another_leader() {
    let text = told(&running());
    assert!(text.starts_with("If orders-1 were gone\n"), "{text}");
    assert!(text.contains("the promise of orders-1, or of 2 of its 2 followers; 2 members must take part"), "{text}");
    assert!(text.contains("orders-2  can promise") && text.ends_with("with every acknowledged commit"), "{text}");
}

#[test]
fn a_set_that_lacks_a_follower_says_that_nobody_could_lead() {
    let mut objects = running();
    objects.pods.retain(|p| p.metadata.name.as_deref() != Some("orders-3"));
    let text = told(&objects);
    assert!(text.contains("orders-3  does not answer"), "{text}");
    assert!(text.ends_with("nobody could lead: 1 of the members of epoch 1 can promise now"), "{text}");
}

#[test]
fn an_election_that_goes_on_says_what_it_waits_for() {
    let text = told(&no_leader());
    assert!(
        text.starts_with("What the election waits for\n") && text.contains("whoever has most is elected"),
        "{text}"
    );
}

#[test]
fn events_about_leadership_are_told_in_their_order() {
    let event = |reason: &str, minute: u32| -> Event {
        serde_json::from_value(serde_json::json!({
            "metadata": {}, "involvedObject": {}, "reason": reason, "message": format!("at {minute}"),
            "eventTime": format!("2026-11-26T12:{minute:02}:00.000000Z"),
        }))
        .unwrap()
    };
    let chosen = past::choose(vec![event("LeaderChanged", 5), event("Pulled", 3), event("EpochOpened", 4)]);
    let lines = past::tell(&chosen, "2026-11-26T12:10:00Z".parse().unwrap());
    assert_eq!(lines, ["What happened", "  6m ago  EpochOpened    at 4", "  5m ago  LeaderChanged  at 5"]);
}
