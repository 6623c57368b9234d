//! What a gateway is told by the controller, and what the controller and others are told of it: all
//! of it read back from the kernel.

use super::{
    book::Book,
    carry::{self, Came},
    filter, rules, shown,
};
use crate::{Host, config::GatewayConfig};
use dtn_api::{
    HostId, Name, Problem,
    gateway::{Count, GatewayReport, GatewaySpec, LONGEST_TROUBLE},
    local::{GatewaySlice, LocalGateway},
    problem::Kind,
};
use dtn_link::{Netns, nft, sysctl};
use jiff::Timestamp;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// Between two declarations of what has not changed.
const DECLARE: Duration = Duration::from_secs(30);
/// Between two reports of what has not changed.
const REPORT: Duration = Duration::from_secs(10);
/// Between two reports of what has not changed but its counters.
const COUNTED: Duration = Duration::from_secs(2);

/// What was exchanged with the controller so far.
#[derive(Debug, Default)]
pub(super) struct Telling {
    declared: Option<Instant>,
    reported: Option<(Instant, GatewayReport)>,
    /// What was logged last.
    trouble: String,
}

impl Telling {
    /// Declares the gateway and asks for its access rules. A controller that does not answer
    /// changes nothing.
    pub(super) async fn ask(
        &mut self,
        host: &Host,
        config: &GatewayConfig,
        inside: Option<&HostId>,
        book: &mut Book,
    ) {
        let outcome = self.asked(host, config, inside, book).await;
        if outcome.is_err() {
            self.declared = None;
        }
        self.note(outcome);
    }

    async fn asked(
        &mut self,
        host: &Host,
        config: &GatewayConfig,
        inside: Option<&HostId>,
        book: &mut Book,
    ) -> Result<(), Problem> {
        let (Some(identity), Some(inside)) = (host.uplink.identity(), inside) else {
            return Ok(());
        };
        let name = &config.name;
        let gateway = if self.declared.is_none_or(|at| at.elapsed() >= DECLARE) {
            let spec = GatewaySpec {
                node: identity.host.clone(),
                host: inside.clone(),
                networks: config.networks.clone(),
                outside: config.addresses.clone(),
                nat: config.nat,
            };
            let gateway = host.uplink.put_gateway(name, &spec).await?;
            self.declared = Some(Instant::now());
            gateway
        } else {
            host.uplink.gateway(name).await?
        };
        if gateway.rules_version == book.rules.version {
            return Ok(());
        }
        let mut told = host.uplink.access_rules(name).await?;
        told.items.sort_by_key(|rule| rule.priority);
        // kept in memory only once it is on the disk: a write that fails is tried again
        let mut next = book.clone();
        next.rules = told;
        next.write(&host.places)?;
        *book = next;
        Ok(())
    }

    /// Tells the controller: at a change, and now and then.
    pub(super) async fn report(&mut self, host: &Host, seen: &LocalGateway) {
        // before it was declared the controller knows of none
        if host.uplink.identity().is_none() || self.declared.is_none() {
            return;
        }
        let report = GatewayReport {
            rules_version: seen.rules_version,
            slices: seen.slices.iter().map(|slice| slice.id).collect(),
            rules: seen.rules.clone(),
            denied_outbound: seen.denied_outbound,
            denied_inbound: seen.denied_inbound,
            trouble: seen.trouble.as_deref().map(shortened),
            read_at: seen.read_at,
        };
        let fresh = self.reported.as_ref().is_some_and(|(at, told)| {
            let counted = (&told.rules, told.denied_outbound, told.denied_inbound)
                == (&report.rules, report.denied_outbound, report.denied_inbound);
            at.elapsed() < if counted { REPORT } else { COUNTED }
                && told.rules_version == report.rules_version
                && told.slices == report.slices
                && told.trouble == report.trouble
        });
        if fresh {
            return;
        }
        let outcome = host.uplink.report_gateway(&seen.name, &report).await;
        match &outcome {
            Ok(()) => self.reported = Some((Instant::now(), report)),
            // it is declared anew, and told then
            Err(_) => self.declared = None,
        }
        self.note(outcome);
    }

    /// The same trouble is logged once.
    fn note(&mut self, outcome: Result<(), Problem>) {
        let trouble = outcome.map_or_else(|problem| problem.to_string(), |()| String::new());
        if !trouble.is_empty() && trouble != self.trouble {
            tracing::warn!("{trouble}");
        }
        self.trouble = trouble;
    }
}

/// As much of it as the controller takes: a report that is refused for its length would say nothing.
fn shortened(trouble: &str) -> String {
    if trouble.len() <= LONGEST_TROUBLE {
        return trouble.to_owned();
    }
    const REST: &str = " …";
    let fits = trouble.floor_char_boundary(LONGEST_TROUBLE - REST.len());
    format!("{}{REST}", &trouble[..fits])
}

fn count(counter: Option<&nft::Counter>) -> Count {
    counter.map_or_else(Count::default, |counter| Count {
        packets: counter.packets,
        bytes: counter.bytes,
    })
}

/// A gateway as it was read back. `logs`: one of its rules wants to be logged.
pub(super) async fn read(
    host: &Host,
    config: &GatewayConfig,
    came: &Came,
    trouble: Option<String>,
    logs: bool,
    now: Timestamp,
) -> LocalGateway {
    let none = nft::Table::default();
    let table = came.table.as_ref().unwrap_or(&none);
    let rules = table
        .counters
        .iter()
        .filter_map(|(name, seen)| Some((rules::number(name)?, count(Some(seen)))))
        .collect();
    LocalGateway {
        name: config.name.clone(),
        inside: shown(&config.inside),
        outside: shown(&config.outside),
        addresses: config.addresses.clone(),
        nat: config.nat,
        netns: host
            .places
            .netns_of(&carry::key(&config.name))
            .display()
            .to_string(),
        slices: came
            .served
            .iter()
            .map(|slice| GatewaySlice {
                id: slice.id,
                name: slice.name.clone(),
                ifname: slice.ifname.clone(),
                addresses: slice.addresses.clone(),
            })
            .collect(),
        rules_version: filter::mark(table).map_or(0, |(version, _)| version),
        rules,
        denied_outbound: count(table.counters.get(rules::DENIED_OUTBOUND)),
        denied_inbound: count(table.counters.get(rules::DENIED_INBOUND)),
        trouble,
        lacking: lacking(logs).await,
        read_at: now,
    }
}

/// What this host cannot do, in words. The kernel writes what a packet filter logs of another
/// namespace than the first only where it is told to (`nf_log_syslog.c`), for all of them at once:
/// that is the admin's to say.
async fn lacking(logs: bool) -> Vec<String> {
    const KEY: &str = "net.netfilter.nf_log_all_netns";
    if !logs {
        return Vec::new();
    }
    let on = match Netns::current() {
        Ok(own) => sysctl::read(&own, KEY).await.ok().flatten(),
        Err(_) => None,
    };
    match on.as_deref() {
        Some("1") => Vec::new(),
        _ => vec![format!(
            "the kernel does not log what rules with log decide about: sysctl -w {KEY}=1"
        )],
    }
}

/// How it is, for a check that holds.
pub(super) fn in_words(gateway: &LocalGateway) -> String {
    let names: Vec<&str> = gateway
        .slices
        .iter()
        .map(|slice| slice.name.as_str())
        .collect();
    let slices = match names.is_empty() {
        true => "no slice is reserved with it now".to_owned(),
        false => format!("it forwards for {}", names.join(", ")),
    };
    let lacking = gateway.lacking.iter().map(|why| format!("; {why}"));
    format!(
        "{slices}, by access rules of version {}{}",
        gateway.rules_version,
        lacking.collect::<String>()
    )
}

/// Tells the controller that a gateway was taken out of the configuration. Its access rules stay
/// with the controller: whether they are wanted again is the operator's to say.
pub(super) async fn gone(host: &Host, name: &Name) -> Result<(), Problem> {
    if host.uplink.identity().is_none() {
        return Ok(());
    }
    let report = GatewayReport {
        rules_version: 0,
        slices: Vec::<Uuid>::new(),
        rules: BTreeMap::new(),
        denied_outbound: Count::default(),
        denied_inbound: Count::default(),
        trouble: Some(format!(
            "it was taken out of the configuration of its host {}",
            host.config().host
        )),
        read_at: Timestamp::now(),
    };
    match host.uplink.report_gateway(name, &report).await {
        // the controller does not know it, or it is another host's by now
        Err(problem) if problem.is(Kind::NotFound) || problem.is(Kind::Forbidden) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_trouble_is_cut_to_what_the_controller_takes() {
        assert_eq!(shortened("no carrier"), "no carrier");
        for letter in ["x", "é", "한", "🚚"] {
            let cut = shortened(&letter.repeat(LONGEST_TROUBLE + 1));
            assert!(
                cut.len() <= LONGEST_TROUBLE && cut.ends_with(" …"),
                "{letter}"
            );
            assert!(cut.len() > LONGEST_TROUBLE - 8, "{letter}");
        }
    }
}
