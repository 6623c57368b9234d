//! Pods: prepare, engine, attachment, rescue and pacing.
