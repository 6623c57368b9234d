//! Pods: prepare, engine, attachment, rescue and pacing.

pub mod attach;
pub mod book;
pub mod decide;
pub mod engine;
pub mod manifest;
pub mod podman;
