//! The operator's reconcile, explored: its own code, in this process, against the embedded API server, one API call after the
//! other, in whatever order a plan asks for. Pods and members are faked by their status, so a plan takes milliseconds.
//!
//! [`faked`] is the kubelet and the agents, [`explorer`] runs plans.

pub mod explorer;
pub mod faked;
