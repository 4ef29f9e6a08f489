//! Each safeguard removed, with bounds within which that shows.

use super::*;

/// `base` with each mutant, and what of the bounds it needs.
pub(crate) fn mutants(base: Opts) -> Vec<Opts> {
    use Mutant::*;
    [
        (NoPledge, Opts { epochs: 2, writes: 2, ..base }),
        (ReportBeforeStop, Opts { epochs: 2, writes: 2, ..base }),
        (VolatilePledge, Opts { epochs: 2, writes: 2, bounces: 1, ..base }),
        (QuorumTooSmall, Opts { epochs: 2, writes: 1, ..base }),
        (BestByLsnOnly, Opts { epochs: 3, writes: 3, ..base }),
        (DropConfigsEarly, Opts { n: 4, epochs: 3, writes: 1, any_mask: true, ..base }),
        (ApplyBeforeRecord, Opts { epochs: 2, writes: 1, reconfs: 1, ..base }),
        (FinishUncovered, Opts { epochs: 2, writes: 1, reconfs: 1, ..base }),
        (FinishUnsettled, Opts { epochs: 2, writes: 2, reconfs: 1, ..base }),
        (UntaggedAcks, Opts { epochs: 3, writes: 2, misroute: true, ..base }),
        (NoCas, Opts { epochs: 2, writes: 2, ..base }),
        (PromoteUnsynced, Opts { epochs: 3, writes: 1, ..base }),
        (ReuseIdentity, Opts { epochs: 2, writes: 1, losses: 1, ..base }),
        (AckWithoutIncarnation, Opts { epochs: 2, writes: 1, losses: 1, reconfs: 1, ..base }),
        (AsyncForced, Opts { epochs: 2, writes: 1, ..base }),
        (ReportReplayOnly, Opts { epochs: 2, writes: 1, bounces: 1, replay: true, ..base }),
        (UnknownSeals, Opts { epochs: 2, writes: 1, bounces: 1, replay: true, ..base }),
        (AttachUnchecked, Opts { epochs: 3, writes: 3, steps: true, locks: 0, ..base }),
        (SlotEarly, Opts { epochs: 3, writes: 3, steps: true, locks: 2, ..base }),
        (AdoptBlind, Opts { epochs: 2, writes: 1, asks: 1, ..base }),
        (AnswerAnyDisk, Opts { epochs: 2, writes: 1, losses: 1, asks: 1, ..base }),
        (AnswerStale, Opts { epochs: 2, writes: 1, asks: 2, ..base }),
        (TornSeals, Opts { epochs: 2, writes: 1, breaks: 1, ..base }),
        (OtherEpochSeals, Opts { epochs: 3, writes: 1, breaks: 1, ..base }),
        (NotedLate, Opts { epochs: 3, writes: 1, breaks: 1, ..base }),
        (NobodySeals, Opts { epochs: 2, writes: 1, reconfs: 1, degrade: true, ..base }),
    ]
    .into_iter()
    .map(|(mutant, o)| Opts { mutant, ..o })
    .collect()
}

impl Opts {
    /// The same bounds with the safeguard in place.
    pub(crate) fn guarded(self) -> Opts {
        let locks = if self.mutant == Mutant::AttachUnchecked { 3 } else { self.locks };
        Opts { mutant: Mutant::None, locks, ..self }
    }
}
