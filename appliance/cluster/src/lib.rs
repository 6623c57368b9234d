//! `dtn-cluster`: what the pods of a Kubernetes cluster ask of the VDN, negotiated before they start.
//!
//! The scheduler gives a pod's claim a NIC; this program sees it, asks the domain's controller
//! `vdnd` what the slice has left, and writes what was agreed into the claim, where `dtnd` on the
//! node reads it before the pod's sandbox is made. Claims, slices and NICs come in ([`world`],
//! [`vdn`]), are read into plain data ([`claim`]), decided as a whole ([`decide`]) and what differs
//! from what was told is written ([`write`](mod@write)). What is promised is counted from the claims
//! themselves, so there is no store to lose; one of several copies leads ([`election`]) and is the
//! one that promises.

pub mod claim;
pub mod decide;
pub mod election;
pub mod health;
pub mod identity;
pub mod queue;
pub mod run;
pub mod since;
pub mod vdn;
pub mod world;
pub mod write;
