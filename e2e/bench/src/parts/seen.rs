//! What four contenders cost, run by run.

use crate::{figure::median, process::Cost};

/// By turns: what the machine could do, pgconvoy, and its peers.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) limit: Vec<Cost>,
    pub(super) ours: Vec<Cost>,
    pub(super) pgbackrest: Vec<Cost>,
    pub(super) barman: Vec<Cost>,
}

impl Seen {
    /// The runs of the contender with this number.
    pub(super) fn of(&mut self, who: usize) -> &mut Vec<Cost> {
        match who {
            0 => &mut self.limit,
            1 => &mut self.ours,
            2 => &mut self.pgbackrest,
            _ => &mut self.barman,
        }
    }

    /// The middle values of all but ours, the limit's first; none of who did not run.
    pub(super) fn others(&self, what: fn(&Cost) -> f64) -> [(&'static str, Option<f64>); 3] {
        let middle = |costs: &[Cost]| (!costs.is_empty()).then(|| median(&each(costs, what)));
        [("limit", middle(&self.limit)), ("pgbackrest", middle(&self.pgbackrest)), ("barman", middle(&self.barman))]
    }
}

/// One figure of each run.
pub(super) fn each(costs: &[Cost], what: fn(&Cost) -> f64) -> Vec<f64> {
    costs.iter().map(what).collect()
}
