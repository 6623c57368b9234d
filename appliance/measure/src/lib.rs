//! What a transfer came to: samples, statistics, what limited it, and the evidence as table, JSON
//! and plot. Nothing here measures by itself; the lab and the supervisor hand in what they read.
//!
//! * [`series`]: counters read over time → goodput over time.
//! * [`statistics`]: median, percentiles, spread.
//! * [`verdict`]: slice, disk or processor: what held it back.
//! * [`report`]: the evidence, as JSON and as a table.
//! * [`plot`]: goodput over time as SVG.

pub mod plot;
pub mod report;
pub mod series;
pub mod statistics;
pub mod verdict;
