//! The user's configuration: looked at before it is used. A refused one leaves the last good one in force.

use super::{
    Error,
    configuration::{self, Accepted, Frame, Role},
    disk, parameters,
    server::{FILES, Postgres},
};
use pgconvoy_crds::InitDb;
use std::{collections::BTreeMap, path::PathBuf};

/// `shared_buffers` comes in pages of this many bytes.
const PAGE: u64 = 8192;

impl Postgres {
    fn good_path(&self) -> PathBuf {
        self.paths().state.join("settings.json")
    }

    /// Looks at the spec's configuration if it is another one than last time. A refusal is reported, not returned.
    ///
    /// # Errors
    /// When it cannot be looked at now; or when it is refused and there is no earlier one to go on with.
    pub(crate) async fn settle_configuration(&self) -> Result<(), Error> {
        let wanted = Accepted::of(&self.settings.borrow());
        let kept = self.kept().clone();
        if kept.examined.as_ref() == Some(&wanted) {
            return self.usable();
        }
        let verdict = self.examine(&wanted).await;
        let refusal = match verdict {
            Ok(()) => None,
            Err(Error::Configuration(why)) => Some(why),
            Err(other) => return Err(other),
        };
        match &refusal {
            None => self.accept(wanted.clone(), kept.accepted).await?,
            Some(why) => {
                tracing::warn!(why, "the configuration of the spec is refused");
                if kept.accepted.is_none()
                    && let Some(good) = self.last_good().await?
                {
                    self.kept().accepted = Some(good);
                }
            }
        }
        self.kept().examined = Some(wanted);
        self.report_refusal(refusal);
        self.usable()
    }

    /// Takes back a configuration whose hba lines PostgreSQL refused.
    pub(crate) async fn refuse_hba(&self, why: String) -> Result<(), Error> {
        let kept = self.kept().clone();
        let Some(mut now) = kept.accepted else { return Ok(()) };
        now.hba = kept.previous.filter(|p| p.hba != now.hba).map(|p| p.hba).unwrap_or_default();
        self.accept(now, None).await?;
        self.report_refusal(Some(why));
        Ok(())
    }

    fn report_refusal(&self, refusal: Option<String>) {
        self.report.send_if_modified(|r| std::mem::replace(&mut r.configuration_error, refusal.clone()) != refusal);
    }

    fn usable(&self) -> Result<(), Error> {
        if self.kept().accepted.is_some() {
            return Ok(());
        }
        let why = self.report.borrow().configuration_error.clone().unwrap_or_default();
        Err(Error::Configuration(format!("PostgreSQL cannot be started with the spec's configuration: {why}")))
    }

    async fn accept(&self, good: Accepted, previous: Option<Accepted>) -> Result<(), Error> {
        let path = self.good_path();
        let bytes = serde_json::to_vec(&good).map_err(|e| Error::disk("encode", &path)(e.into()))?;
        let write = move || {
            path.parent().map_or(Ok(()), disk::make_directory)?;
            disk::write_if_other(&path, &bytes)
        };
        self.disk.run("keeping the good configuration", FILES, write).await?;
        let mut kept = self.kept();
        kept.accepted = Some(good);
        if previous.is_some() {
            kept.previous = previous;
        }
        Ok(())
    }

    /// The configuration that an earlier agent found good.
    async fn last_good(&self) -> Result<Option<Accepted>, Error> {
        let path = self.good_path();
        let bytes = self.disk.run("reading the last good configuration", FILES, move || disk::read(&path)).await?;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
    }

    /// Whether PostgreSQL takes it: our own rules, then a dry run of the image's `postgres`, then memory.
    async fn examine(&self, wanted: &Accepted) -> Result<(), Error> {
        parameters::check(&wanted.parameters).map_err(Error::Configuration)?;
        parameters::check_hba(&wanted.hba).map_err(Error::Configuration)?;
        let (major, system_user) = self.image().await?;
        let candidate = self.paths().state.join("candidate.conf");
        let frame = Frame {
            identity: &self.config.identity,
            listen: &self.config.listen,
            system_user: &system_user,
            floors: &BTreeMap::new(),
            volume: 0,
            major,
            certificates: 0,
        };
        let files = configuration::files(&frame, wanted, &Role::detached());
        let path = candidate.clone();
        let write = move || {
            path.parent().map_or(Ok(()), disk::make_directory)?;
            disk::write(&path, files.conf.as_bytes())
        };
        self.disk.run("writing a configuration to be tried", FILES, write).await?;
        let state = self.paths().state.clone();
        let pages: u64 = self.programs.configured(&candidate, &state, "shared_buffers").await?.parse().unwrap_or(0);
        let buffers = pages.saturating_mul(PAGE);
        let memory = wanted.memory.or_else(machine_memory);
        if let Some(memory) = memory.filter(|m| buffers >= *m) {
            return Err(Error::Configuration(format!(
                "shared_buffers is {} MiB, but the container may use {} MiB of memory; lower it, or raise \
                 resources.limits.memory",
                buffers >> 20,
                memory >> 20
            )));
        }
        Ok(())
    }
}

/// Memory of this machine, in bytes.
fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Fills in the defaults of `initdb`, which are the CRD's.
pub(crate) fn initdb(given: &InitDb) -> InitDb {
    InitDb {
        database: given.database.clone(),
        owner: given.owner.clone(),
        data_checksums: Some(given.data_checksums.unwrap_or(true)),
        locale: Some(given.locale.clone().unwrap_or_else(|| "C.UTF-8".into())),
        encoding: Some(given.encoding.clone().unwrap_or_else(|| "UTF8".into())),
    }
}
