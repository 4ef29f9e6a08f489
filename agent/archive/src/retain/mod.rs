//! Retention: which snapshots and which WAL stay, and removing the rest.
//!
//! [`plan`] decides and is pure; [`Inventory`] is what it looks at; [`sweep`] removes, in batches, or only counts. What goes is
//! never the newest complete snapshot, nor WAL that a kept snapshot needs, up to the end of the archive. [`verify`] looks whether
//! what is kept could be restored.

mod inventory;
mod plan;
mod sweep;
mod verify;

pub use inventory::{EpochSeen, Good, Inventory, Unfinished, clock};
pub use plan::{Floor, Plan, Policy, Why, plan};
pub use sweep::{Swept, sweep};
pub use verify::{Finding, Reach, reach, reach_along, verify};
