//! Bounds, and which safeguard is needed within which.

use super::{LENGTH, Mutant, Opts};

const PLAIN: Opts = Opts {
    quorum: true,
    moves: true,
    length: LENGTH as u8,
    copy: false,
    misled: false,
    foreign: false,
    mutant: Mutant::None,
};
const ALONE: Opts = Opts { quorum: false, ..PLAIN };
const MISLED: Opts = Opts { misled: true, length: 2, ..ALONE };
const TWICE: Opts = Opts { copy: true, moves: false, ..ALONE };

/// Bounds that are enumerated completely: their name, how many states that is, and whether everything holds.
pub(crate) fn cases() -> Vec<(&'static str, Option<usize>, Opts)> {
    vec![
        ("under a quorum", Some(22_027), PLAIN),
        ("under a quorum, another set", Some(64_321), Opts { foreign: true, ..PLAIN }),
        ("without a quorum", Some(16_116), ALONE),
        ("without a quorum, a member is misled", Some(196_133), MISLED),
        ("without a quorum, another set", Some(29_810), Opts { foreign: true, ..ALONE }),
        ("without a quorum, a machine runs twice, nobody takes over", Some(260), TWICE),
        // Whoever takes over goes on from one of the two, and the archive may have the other's.
        ("without a quorum, a machine runs twice, another takes over", None, Opts { moves: true, ..TWICE }),
    ]
}

/// Each safeguard taken away, where it is needed.
pub(crate) fn mutants() -> Vec<Opts> {
    vec![
        Opts { mutant: Mutant::ClaimIgnored, ..MISLED },
        Opts { mutant: Mutant::AncestorsUnchecked, ..MISLED },
        Opts { mutant: Mutant::NotCompared, ..TWICE },
        Opts { mutant: Mutant::Unconditional, ..TWICE },
        Opts { mutant: Mutant::OwnerUnchecked, foreign: true, ..PLAIN },
        Opts { mutant: Mutant::ForkIgnored, ..ALONE },
        Opts { mutant: Mutant::Unflushed, ..PLAIN },
        Opts { mutant: Mutant::NoCatchUp, ..PLAIN },
    ]
}
