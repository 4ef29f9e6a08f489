//! Does what a plan says, and undoes it.

use super::network::Cut;
use super::plan::{Api, Blow, Step, Target};
use super::processes::{Part, take_disk};
use super::set::{Member, Set};
use anyhow::Context as _;

/// What is to be undone.
#[derive(Debug, Default)]
pub struct Undo {
    stopped: Vec<i32>,
    cuts: Vec<Cut>,
    api: bool,
}

impl Set {
    /// Does it. Whom it was done to, for people.
    ///
    /// # Errors
    /// When it cannot be done; what was done until then is in `undo`.
    pub async fn strike(&self, step: &Step, undo: &mut Undo) -> anyhow::Result<String> {
        let mut members = vec![];
        for name in self.members().await? {
            members.push(self.member(&name).await?);
        }
        if step.api == Api::Down {
            undo.api = true;
            self.api_answers(false).await?;
        }
        for (target, blow) in &step.blows {
            let (it, others): (Vec<&Member>, Vec<&Member>) =
                members.iter().partition(|m| m.name == members[*target as usize].name);
            let it = it.first().context("no such member")?;
            self.blow(it, &others, *blow, undo)
                .await
                .with_context(|| format!("{blow:?} of {target:?}, {}", it.name))?;
        }
        let whom = step.blows.iter().map(|(target, _)| members[*target as usize].name.clone());
        Ok(whom.collect::<Vec<_>>().join(", "))
    }

    async fn blow(&self, it: &Member, others: &[&Member], blow: Blow, undo: &mut Undo) -> anyhow::Result<()> {
        let mut cut = |cut: Cut| {
            undo.cuts.push(cut);
            self.network.cut(cut)
        };
        match blow {
            Blow::Kill(part) => self.processes.kill(&it.uid, part).map(drop),
            Blow::Stop(part) => {
                undo.stopped.extend(self.processes.stop(&it.uid, part)?);
                Ok(())
            }
            Blow::CutApi => cut(Cut::Api(it.address)),
            Blow::CutMembers => others.iter().try_for_each(|o| cut(Cut::Pods(it.address, o.address))),
            Blow::CutAll => cut(Cut::All(it.address)),
            Blow::Wipe => {
                let volume = self.volume(&it.name).await?;
                let gone = take_disk(&self.processes.directory, &volume)?;
                self.processes.kill(&it.uid, Part::Pod)?;
                // Whoever is being killed may still write to it.
                let _ = std::fs::remove_dir_all(gone);
                Ok(())
            }
            Blow::Delete => self.delete_pod(&it.name, false).await,
            Blow::ForceDelete => self.delete_pod(&it.name, true).await,
            Blow::Switchover => self.switch_over().await,
        }
    }

    /// Undoes what can be undone.
    ///
    /// # Errors
    /// When something cannot, though it should.
    pub async fn undo(&self, undo: Undo) -> anyhow::Result<()> {
        self.processes.go_on(&undo.stopped);
        undo.cuts.iter().try_for_each(|cut| self.network.heal(*cut))?;
        if undo.api {
            self.api_answers(true).await?;
        }
        Ok(())
    }
}

const _: () = assert!(Target::Leader as usize == 0 && Target::First as usize == 1 && Target::Second as usize == 2);
