//! `dtnctl fabric`: the switches that enforce slices, what their guards count, and whether they have
//! what they should.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{CARRY_OUT, Daemon, LOOK_UP},
    table::Table,
    wording::count,
};
use anyhow::Context as _;
use clap::Subcommand;
use dtn_api::{
    Name, Rate,
    fabric::{Difference, FabricLink, FabricStatus, SwitchCertificate, SwitchCertificateRequest},
};
use std::path::PathBuf;

/// What about the fabric.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The switches, and what the guards of slices have counted
    Show,
    /// Sign the key of a switch, so that it can connect over TLS
    Certify(CertifyArgs),
    /// How the switches are joined, as they see it
    Links,
    /// What the switches see and the configuration does not say, as cables for vdnd's configuration
    Discover,
    /// Hold what is wanted against what the switches have, rule by rule; fails on a difference
    Check,
}

#[derive(Debug, clap::Args)]
struct CertifyArgs {
    /// The switch, by its name in the configuration
    name: Name,
    /// Its certificate request (PKCS#10, PEM)
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    /// Where its certificate is written
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Where the authority that it shall believe is written
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb.unwrap_or(Verb::Show) {
        Verb::Show => show(context).await,
        Verb::Check => check(context).await,
        Verb::Links => links(context).await,
        Verb::Discover => discover(context).await,
        Verb::Certify(args) => certify(&args, context).await,
    }
}

async fn show(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .get("/fabric")
        .await
        .map_err(|error| while_doing("asking for the fabric", error))?;
    if context.json {
        return json(&answer);
    }
    let status: FabricStatus = read(&answer, "the fabric")?;
    let done = Done::text(shown(&status));
    Ok(match (&status.trouble, status.switches.is_empty()) {
        (Some(trouble), _) => done.next(trouble.clone()),
        (None, true) => done,
        (None, false) => done.next(format!(
            "hold it against what is wanted: {} fabric check",
            context.place.command()
        )),
    })
}

async fn links(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link.get("/fabric/links").await;
    let answer =
        answer.map_err(|error| while_doing("asking how the switches are joined", error))?;
    let links: Vec<FabricLink> = items(&answer, "the links")?;
    if context.json {
        return json(&answer);
    }
    let done = Done::text(joined(&links));
    Ok(match links.iter().any(|link| !link.cable) {
        true => done.next(format!(
            "write what is there as cables: {} fabric discover",
            context.place.command()
        )),
        false => done,
    })
}

fn joined(links: &[FabricLink]) -> String {
    let mut table = Table::new(&["ENDS", "CABLE", "SEEN", "SPEED", "NOTE"]);
    for link in links {
        table.row([
            link.ends.join(" "),
            if link.cable { "yes" } else { "NO" }.into(),
            link.seen_s
                .map_or_else(|| "not now".into(), |age| format!("{age} s ago")),
            link.speed_bps
                .map_or_else(|| "not told".into(), |bps| Rate::from_bps(bps).to_string()),
            link.trouble.clone().unwrap_or_default(),
        ]);
    }
    table
        .print("no cable is written and no link is seen (the fabric openflow alone looks for them)")
}

async fn discover(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link.get("/fabric/links").await;
    let answer =
        answer.map_err(|error| while_doing("asking how the switches are joined", error))?;
    let links: Vec<FabricLink> = items(&answer, "the links")?;
    if context.json {
        return json(&answer);
    }
    Ok(Done::text(written(&links)))
}

/// What is seen and not written, as the configuration has it.
fn written(links: &[FabricLink]) -> String {
    let new: Vec<&FabricLink> = links.iter().filter(|link| !link.cable).collect();
    if new.is_empty() {
        return "# every link that the switches see is written as a [[cable]]\n".to_owned();
    }
    let mut text = String::from(
        "# What the switches see. Look over capacity and mtu, and put it into appliance.toml.\n",
    );
    for link in new {
        let (capacity, told) = match link.speed_bps {
            Some(bps) => (Rate::from_bps(bps).to_string(), ""),
            None => ("1Gbit".to_owned(), "   # the ports do not tell their rate"),
        };
        // as TOML has it too: the only characters that a name needs them for are " and \
        let ends = link.ends.join(" ");
        text +=
            &format!("\n[[cable]]\nends = {ends:?}\ncapacity = \"{capacity}\"{told}\nmtu = 1500\n");
    }
    text
}

async fn check(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let answer = link
        .get("/fabric/differences")
        .await
        .map_err(|error| while_doing("holding the switches against what is wanted", error))?;
    let differences: Vec<Difference> = items(&answer, "the differences")?;
    if context.json && differences.is_empty() {
        return json(&answer);
    }
    if differences.is_empty() {
        return Ok(Done::text(
            "the switches have what they should, and nothing else\n",
        ));
    }
    let mut table = Table::new(&["SWITCH", "IS", "RULE", "SLICE"]);
    for difference in &differences {
        table.row([
            difference.switch.clone(),
            difference.kind.clone(),
            difference.what.clone(),
            difference
                .slice
                .map(|id| id.to_string())
                .unwrap_or_default(),
        ]);
    }
    let text = if context.json {
        json(&answer)?.out
    } else {
        table.print("")
    };
    Err(Failure::because(format!(
        "the switches differ from what is wanted in {}",
        count(differences.len(), "rule")
    ))
    .or_next(remedy(&differences))
    .showing(text))
}

/// What to do about the worst of them.
fn remedy(differences: &[Difference]) -> &'static str {
    let any = |kind: &str| differences.iter().any(|difference| difference.kind == kind);
    if any("unreachable") {
        "look at the switches that are away, and at their way to the controller (vdnd's log says why)"
    } else if any("foreign") {
        "rules of somebody else stay until he takes them away: find who programs the switch (fail_mode=secure on an Open vSwitch)"
    } else {
        "the controller makes it good every 10 s: look again, and see its log when it stays"
    }
}

async fn certify(args: &CertifyArgs, context: &Context) -> Outcome {
    let csr_pem = std::fs::read_to_string(&args.csr)
        .with_context(|| format!("reading {}", args.csr.display()))?;
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let path = format!("/fabric/switches/{}/certificate", args.name);
    let answer = link
        .post(&path, &SwitchCertificateRequest { csr_pem })
        .await
        .map_err(|error| while_doing(format!("signing the key of switch {}", args.name), error))?;
    let made: SwitchCertificate = read(&answer, "the certificate")?;
    for (file, pem) in [
        (&args.certificate, &made.certificate_pem),
        (&args.authority, &made.ca_pem),
    ] {
        std::fs::write(file, pem).with_context(|| format!("writing {}", file.display()))?;
    }
    if context.json {
        return json(&answer);
    }
    Ok(Done::text(format!(
        "switch {}: certificate in {}, authority in {}\n",
        args.name,
        args.certificate.display(),
        args.authority.display()
    ))
    .next(format!(
        "on an Open vSwitch: ovs-vsctl set-ssl KEY {} {} && ovs-vsctl set-controller BRIDGE ssl:ADDRESS:6653",
        args.certificate.display(),
        args.authority.display()
    )))
}

fn shown(status: &FabricStatus) -> String {
    if status.switches.is_empty() {
        return format!(
            "fabric {}: the hosts pace their own traffic; no switch is programmed\n",
            status.kind
        );
    }
    let mut switches = Table::new(&[
        "SWITCH",
        "DATAPATH",
        "LINK",
        "RULES",
        "METERS",
        "MOST METERS",
        "IS",
        "NOTE",
    ]);
    for switch in &status.switches {
        switches.row([
            switch.name.to_string(),
            switch.datapath_id.clone(),
            if switch.connected { "up" } else { "AWAY" }.into(),
            switch.rules.to_string(),
            switch.meters.to_string(),
            switch
                .max_meters
                .map_or_else(|| "not told".into(), |most| most.to_string()),
            switch.description.clone(),
            switch.trouble.clone().unwrap_or_default(),
        ]);
    }
    let mut slices = Table::new(&["SLICE", "FRAMES", "BYTES", "DROPPED", "DROPPED BYTES"]);
    for slice in &status.slices {
        slices.row([
            slice.name.to_string(),
            slice.counters.packets.to_string(),
            slice.counters.bytes.to_string(),
            slice.counters.dropped_packets.to_string(),
            slice.counters.dropped_bytes.to_string(),
        ]);
    }
    format!(
        "{}\n{}",
        switches.print(""),
        slices.print("no slice is guarded now")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ends: [&str; 2], cable: bool) -> FabricLink {
        FabricLink {
            ends: ends.map(str::to_owned),
            cable,
            seen_s: Some(3),
            speed_bps: (!cable).then_some(10_000_000_000),
            trouble: (!cable).then(|| "no [[cable]] says so".to_owned()),
        }
    }

    #[test]
    fn what_is_not_written_is_printed_as_it_is_to_be_written() {
        let links = [
            link(["edge1/2", "core/1"], true),
            link(["edge1/\"x\"", "core/3"], false),
        ];
        let text = written(&links);
        let lines = "[[cable]]\nends = \"edge1/\\\"x\\\" core/3\"\ncapacity = \"10Gbit\"\n";
        assert!(text.contains(lines), "{text}");
        assert_eq!(text.matches("[[cable]]").count(), 1, "{text}");
        assert!(written(&links[..1]).starts_with('#'));
        let shown = joined(&links);
        for part in ["edge1/2 core/1", "3 s ago", "10Gbit", "NO", "no [[cable]]"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn a_switch_that_is_away_is_seen_at_once() {
        let status: FabricStatus = serde_json::from_value(serde_json::json!({
            "kind": "openflow",
            "switches": [
                {"name": "edge1", "datapath_id": "0000000000000001", "connected": true,
                 "description": "Open vSwitch 3.1.0", "max_meters": 262144, "rules": 12, "meters": 1},
                {"name": "core", "datapath_id": "0000000000000002", "connected": false,
                 "rules": 0, "meters": 0, "trouble": "has not connected yet"}
            ],
            "slices": [{"slice_id": "01a20ea2-c626-7744-af7a-0df7b7ba4abb", "name": "lhc",
                "packets": 10, "bytes": 15000, "dropped_packets": 0, "dropped_bytes": 0}]
        }))
        .unwrap();
        let text = shown(&status);
        for part in ["AWAY", "has not connected yet", "262144", "lhc", "15000"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let edge = FabricStatus {
            kind: "edge".into(),
            trouble: None,
            switches: Vec::new(),
            slices: Vec::new(),
        };
        assert!(shown(&edge).contains("no switch is programmed"));
    }
}
