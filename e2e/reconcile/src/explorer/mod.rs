//! Runs of a scenario, undisturbed and disturbed, and what every run must show.

mod cluster;
mod explore;
mod guard;
mod line;
mod operator;
mod plan;
mod run;
mod scenarios;
mod world;

pub use cluster::{Counted, Ground};
pub use explore::{Explored, explore};
pub use plan::{Disturbance, Plan, enumerate, sample};
pub use run::{Grounds, Outcome, run};
pub use scenarios::{Scenario, Step, all};
pub use world::World;
