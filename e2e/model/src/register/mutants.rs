//! Each safeguard removed, with bounds and a schedule to start from that show what it is for.

use super::*;

/// Each mutant with bounds that kill it.
pub(crate) fn mutants() -> Vec<Opts> {
    use Act::*;
    let o = Opts {
        n: 4,
        members: 4,
        w: 1,
        opens: 2,
        writes: 1,
        restores: 1,
        deletes: 0,
        repairs: 0,
        reconfs: 0,
        prefix: &[],
        mutant: Mutant::None,
    };
    // member 1 was elected by 1, 2, 3 and may acknowledge with any of them; 0 knows nothing of it
    const ONE_LEADS: &[Act] =
        &[Open, Pledge(1, 1), Pledge(2, 1), Pledge(3, 1), Elect(1), Store(2, 2), Store(3, 2), Promote(1, 2), Delete];
    const BACK_AND_FURTHER: &[Act] = &[
        Open,
        Pledge(1, 1),
        Pledge(2, 1),
        Pledge(3, 1),
        Elect(1),
        Store(2, 2),
        Store(3, 2),
        Promote(1, 2),
        Restore(0, true),
        Open,
        Open,
        Pledge(0, 4),
    ];
    // 1 leads epoch 2 with 2; the register goes back to epoch 1; 0, which was away, opens a second 2 (alarm), then 3
    const BACK_AND_TWO_NUMBERS_UP: &[Act] = &[
        Open,
        Pledge(1, 1),
        Pledge(2, 1),
        Elect(1),
        Store(2, 2),
        Promote(1, 2),
        Attach(2, 1),
        Stream(2),
        Activate(1),
        Restore(0, true),
        Open,
        Open,
        Pledge(0, 4),
        Elect(0),
    ];
    vec![
        Opts { mutant: Mutant::IdsIgnored, n: 3, members: 3, ..o },
        Opts { mutant: Mutant::NumberAndId, n: 3, members: 3, opens: 3, prefix: BACK_AND_TWO_NUMBERS_UP, ..o },
        Opts { mutant: Mutant::NumberAndId, ..o },
        Opts { mutant: Mutant::PromoteAtOnce, n: 3, members: 3, ..o },
        Opts { mutant: Mutant::PromoteAlone, n: 3, members: 3, ..o },
        Opts { mutant: Mutant::RepairByNumber, restores: 0, deletes: 1, repairs: 1, prefix: ONE_LEADS, ..o },
        Opts { mutant: Mutant::RepairNewest, opens: 3, repairs: 1, prefix: BACK_AND_FURTHER, ..o },
        Opts { mutant: Mutant::ApplyUnseen, members: 3, opens: 1, reconfs: 1, ..o },
    ]
}
