//! Certificates that nobody renews are told of before they expire, and afterwards.

use super::tls::Tls;
use crate::coordination::{About, Events};
use pgconvoy_terms::MemberName;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// It is told again after so long: Events are kept for an hour.
const AGAIN: Duration = Duration::from_secs(3_600);
/// How long before the end it is told of, in seconds. They are renewed when two thirds of their year are over, so by then somebody must
/// look.
const AHEAD: i64 = 30 * DAY;
const DAY: i64 = 86_400;

/// Tells of this member's certificate for as long as it has nearly expired, or has. The task does not end.
pub fn watch_expiry(me: &MemberName, tls: Tls, events: Events) -> JoinHandle<()> {
    let me = me.clone();
    tokio::spawn(async move {
        let (mut told, mut at) = (None, Instant::now());
        loop {
            let loaded = tls.current();
            let days = loaded.seconds_left().filter(|left| *left < AHEAD).map(|left| left.div_euclid(DAY));
            let again = told != Some((loaded.generation, days)) || at.elapsed() >= AGAIN;
            if let (Some(days), true) = (days, again) {
                events.warn(About::Set, "CertificateExpires", &sentence(&me, days));
                (told, at) = (Some((loaded.generation, Some(days))), Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}

/// `days` are left of it; negative: it expired.
fn sentence(me: &MemberName, days: i64) -> String {
    let when = match days {
        ..0 => "has expired".to_owned(),
        0 => "expires today".to_owned(),
        1 => "expires tomorrow".to_owned(),
        days => format!("expires in {days} days"),
    };
    format!(
        "the certificate by which other members know {me} {when}. Once it has, what runs goes on while the API server answers, but no new \
         connection between members comes about, and no other leader can be elected. The operator should have renewed it long ago: see that \
         it runs and what it says of this set, and that the pod has the new files"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when() {
        let said = |days| sentence(&MemberName::new("orders", 1), days);
        assert!(said(-3).contains("orders-1 has expired") && said(0).contains("orders-1 expires today"));
        assert!(said(1).contains("orders-1 expires tomorrow") && said(29).contains("orders-1 expires in 29 days"));
    }
}
