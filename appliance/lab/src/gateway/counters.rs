//! What has been counted: by the gateway's host and by the switches, of what was dropped and of what
//! each rule let pass.

use super::{
    doors::{IN, OUT},
    trial::path,
};
use crate::{capsule::Lab, daemons::Daemons, site::Site};
use anyhow::{Context, Result};
use dtn_api::gateway::{Gateway, StandingRules};

/// What was read.
pub(super) struct Counted {
    /// Packets that the host dropped on their way out.
    pub(super) outbound: u64,
    /// And on their way in.
    pub(super) inbound: u64,
    /// Packets that the site's switches dropped; `None` without switches.
    pub(super) by_switches: Option<u64>,
    /// What should have been counted and is not, in words.
    pub(super) missing: Vec<String>,
}

/// What a site's switches have dropped in their tables of access; `None` without switches.
pub(super) async fn switches_denied(lab: &Lab, site: &Site) -> Result<Option<u64>> {
    match lab.switches.get(site.index) {
        Some(switches) => switches.denied().await.map(Some),
        None => Ok(None),
    }
}

/// Reads all counters; `before` is what the switches had dropped before the trial.
pub(super) async fn read(
    lab: &Lab,
    site: &Site,
    daemons: &Daemons,
    before: Option<u64>,
) -> Result<Counted> {
    let reading = || format!("reading the counters of the gateway of {}", site.name);
    let gateway: Gateway = daemons.vdn.get(&path("")).await.with_context(reading)?;
    let standing: StandingRules = daemons
        .vdn
        .get(&path("/access_rules"))
        .await
        .with_context(reading)?;
    let by_switches = match (switches_denied(lab, site).await?, before) {
        (Some(now), Some(before)) => Some(now.saturating_sub(before)),
        _ => None,
    };
    let (outbound, inbound) = gateway.report.as_ref().map_or((0, 0), |report| {
        (
            report.denied_outbound.packets,
            report.denied_inbound.packets,
        )
    });
    Ok(Counted {
        outbound,
        inbound,
        by_switches,
        missing: missing(&gateway, &standing, outbound, inbound, by_switches),
    })
}

/// What is not counted yet, in words. What leaves a slice comes to the switches first, where there are
/// some; what comes into it comes to the gateway's host first.
fn missing(
    gateway: &Gateway,
    standing: &StandingRules,
    out: u64,
    into: u64,
    by_switches: Option<u64>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |holds: bool, text: String| {
        if !holds {
            found.push(text);
        }
    };
    say(
        into > 0,
        "its host has counted nothing that was denied on its way in".into(),
    );
    match by_switches {
        Some(packets) => {
            say(
                packets > 0,
                "the switches have counted nothing that was denied".into(),
            );
            say(
                standing
                    .denied_switches
                    .is_some_and(|count| count.packets > 0),
                "the controller knows of nothing that its switches have denied".into(),
            );
        }
        None => say(
            out > 0,
            "its host has counted nothing that was denied on its way out".into(),
        ),
    }
    for number in [OUT, IN] {
        let rule = standing
            .items
            .iter()
            .find(|one| one.rule.priority == number);
        say(
            rule.is_some_and(|rule| rule.host.packets > 0),
            format!("its host has counted nothing for rule {number}"),
        );
        say(
            by_switches.is_none()
                || rule.is_some_and(|rule| rule.switches.is_some_and(|count| count.packets > 0)),
            format!("the switches have counted nothing for rule {number}"),
        );
    }
    let version = gateway.report.as_ref().map(|report| report.rules_version);
    say(
        version == Some(standing.version),
        format!(
            "its host says that it has version {version:?} of the rules, and {} is the newest",
            standing.version
        ),
    );
    found
}

#[cfg(test)]
mod tests;
