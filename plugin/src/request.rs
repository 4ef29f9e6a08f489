//! `switchover`, `takeover`, `term repair`: a PgRequest is made, and what comes of it is told.

use crate::access::Access;
use crate::cli::{SwitchoverArgs, TakeoverArgs, TermRepairArgs};
use crate::objects;
use crate::problem::Problem;
use crate::words::clean;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use pgconvoy_crds::{PgRequest, PgRequestSpec, PgRequestStatus, Repair, RequestState, Switchover, Takeover};
use pgconvoy_terms::MemberName;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How often it is looked what came of a request.
const LOOK: Duration = Duration::from_millis(300);

/// Asks for another leader.
pub(crate) async fn switchover(access: &Access, args: &SwitchoverArgs) -> Result<ExitCode, Problem> {
    let set = objects::one(access, &args.set).await?;
    let there: Vec<String> = set.set.status.map(|s| s.roster).unwrap_or_default();
    let to = match &args.to {
        None => None,
        Some(wanted) => Some(member(&args.set, wanted, &there)?),
    };
    let spec =
        PgRequestSpec { set: args.set.clone(), switchover: Some(Switchover { to }), takeover: None, repair: None };
    ask(access, "switchover", spec, args.wait).await
}

/// Ends an epoch whose leader is gone.
pub(crate) async fn takeover(access: &Access, args: &TakeoverArgs) -> Result<ExitCode, Problem> {
    objects::one(access, &args.set).await?;
    let takeover = Takeover { epoch: args.epoch.into(), accept_loss: args.accept_loss };
    let spec = PgRequestSpec { set: args.set.clone(), switchover: None, takeover: Some(takeover), repair: None };
    ask(access, "takeover", spec, args.wait).await
}

/// Makes a PgTerm again that was lost or rolled back.
pub(crate) async fn repair(access: &Access, args: &TermRepairArgs) -> Result<ExitCode, Problem> {
    objects::one(access, &args.set).await?;
    let repair = Some(Repair { accept_loss: args.accept_loss });
    let spec = PgRequestSpec { set: args.set.clone(), switchover: None, takeover: None, repair };
    ask(access, "repair", spec, args.wait).await
}

/// A member's whole name, given that or its number.
fn member(set: &str, wanted: &str, there: &[String]) -> Result<String, Problem> {
    let name = match wanted.parse::<u32>() {
        Ok(ordinal) => MemberName::new(set, ordinal).to_string(),
        Err(_) => wanted.to_owned(),
    };
    if there.contains(&name) {
        return Ok(name);
    }
    Err(Problem::NoMember { set: set.to_owned(), member: wanted.to_owned(), there: there.to_vec() })
}

async fn ask(access: &Access, deed: &str, spec: PgRequestSpec, wait: u64) -> Result<ExitCode, Problem> {
    let requests: Api<PgRequest> = Api::namespaced(access.client.clone(), &access.namespace);
    let metadata = ObjectMeta { generate_name: Some(format!("{}-{deed}-", spec.set)), ..ObjectMeta::default() };
    let request = PgRequest { metadata, spec, status: None };
    let made = access.ask("a new PgRequest", requests.create(&PostParams::default(), &request)).await?;
    let name = made.name_any();
    say(&format!("pgrequest/{name} made"))?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait);
    let mut told = None;
    while tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        let now = access.ask(&format!("PgRequest {name}"), requests.get(&name)).await?;
        let status = now.status.unwrap_or_default();
        if told.as_ref() != Some(&status) {
            if let Some(line) = line(&status) {
                say(&line)?;
            }
            if let Some(state) = status.state.filter(|s| s.ended()) {
                return Ok(ExitCode::from(u8::from(state == RequestState::Failed)));
            }
            told = Some(status);
        }
    }
    let taken_up = told.is_some_and(|s| s.state.is_some());
    Err(Problem::NotEnded { name, set: made.spec.set, wait, taken_up })
}

fn line(status: &PgRequestStatus) -> Option<String> {
    let state = match status.state? {
        RequestState::Running => "under way",
        RequestState::Complete => "done",
        RequestState::Failed => "failed",
    };
    Some(match &status.message {
        Some(message) => format!("{state}: {message}"),
        None => state.to_owned(),
    })
}

fn say(text: &str) -> Result<(), Problem> {
    writeln!(std::io::stdout(), "{}", clean(text)).map_err(Problem::Print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_named_or_numbered() {
        let there = ["orders-1".to_owned(), "orders-2".to_owned()];
        assert_eq!(member("orders", "2", &there).unwrap(), "orders-2");
        assert_eq!(member("orders", "orders-1", &there).unwrap(), "orders-1");
        let said = member("orders", "7", &there).unwrap_err().to_string();
        assert_eq!(said, "orders has no member 7; its members are orders-1, orders-2");
    }

    #[test]
    fn what_came_of_it_is_a_line() {
        let mut status = PgRequestStatus::default();
        assert_eq!(line(&status), None);
        status.state = Some(RequestState::Complete);
        status.message = Some("orders-2 leads epoch 2, after orders-1".to_owned());
        assert_eq!(line(&status).unwrap(), "done: orders-2 leads epoch 2, after orders-1");
    }
}
