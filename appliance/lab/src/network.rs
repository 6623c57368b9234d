//! The network of the lab, step by step: the sites' cables, their switches, the wide-area link.

use crate::{
    Options,
    capsule::step,
    gateway, onos,
    openvswitch::{self, Switches},
    options::Fabric,
    pillar::{Pillar, Watch},
    place::{Place, SITES},
    progress::{Event, tell},
    site::{self, Site},
    switches,
    wan::{self, Wan},
};
use anyhow::Result;
use dtn_api::Rate;
use std::path::Path;

/// All of it, up.
pub struct Network {
    /// The hosts.
    pub sites: Vec<Site>,
    /// The link between them.
    pub wan: Wan,
    /// Their switches, in the order of the sites, where a controller programs them.
    pub switches: Vec<Switches>,
    /// Frame rate that those carry here.
    pub switches_carry: Option<Rate>,
    /// What a reader of the report must know, in words.
    pub notes: Vec<String>,
    /// Its processes.
    pub pillars: Vec<Pillar>,
}

/// Makes it. A wide-area link whose rate nobody asked for gets the rate that the switches carry, when
/// that is less.
pub async fn bring_up(
    options: &mut Options,
    place: &Place,
    program: &Path,
    watch: &Watch,
) -> Result<Network> {
    let (sites, mut pillars) = step(
        "cables and switches",
        60,
        None,
        site::build(options, place, program, watch),
    )
    .await?;
    for site in &sites {
        pillars.push(gateway::serve(site.index, place, program, watch).await?);
    }
    tell(&Event::Done {
        detail: format!(
            "{} sites, {} data NIC(s) each, MTU {}; an external network behind each",
            sites.len(),
            options.nics,
            options.mtu
        ),
    });
    let mut switches = Vec::new();
    if options.fabric.switched() {
        let running;
        (switches, running) = start_switches(options, place, watch).await?;
        pillars.extend(running);
    }
    let (mut wan, relay) = lay_link(options, place, program, &switches, watch).await?;
    pillars.extend(relay);
    let (mut switches_carry, mut notes) = (None, Vec::new());
    if !switches.is_empty() {
        let note;
        (switches_carry, note) = try_switches(options, place, program, &switches, &mut wan).await?;
        notes.extend(note);
    }
    if options.fabric == Fabric::Onos {
        // not before: what starts on the same processors would be taken for what switches carry
        for site in &sites {
            pillars.push(onos::start(site, place, options, program, watch)?);
        }
    }
    Ok(Network {
        sites,
        wan,
        switches,
        switches_carry,
        notes,
        pillars,
    })
}

/// Open vSwitch at both sites.
async fn start_switches(
    options: &Options,
    place: &Place,
    watch: &Watch,
) -> Result<(Vec<Switches>, Vec<Pillar>)> {
    let starts = (0..SITES.len()).map(|site| Switches::start(site, options, place, watch));
    let (started, version) = step(
        "Open vSwitch at both sites",
        60,
        Some(&place.logs()),
        async {
            let started = futures_util::future::try_join_all(starts).await?;
            anyhow::Ok((started, openvswitch::version().await?))
        },
    )
    .await?;
    tell(&Event::Done {
        detail: format!(
            "version {version} with its data path in user space; bridges {} per site, OpenFlow 1.3",
            switches::BRIDGES.join(", ")
        ),
    });
    let (switches, pillars): (Vec<_>, Vec<_>) = started.into_iter().unzip();
    Ok((switches, pillars.into_iter().flatten().collect()))
}

/// The link between the sites. One that ends in bridges of the kernel is limited at once.
async fn lay_link(
    options: &Options,
    place: &Place,
    program: &Path,
    switches: &[Switches],
    watch: &Watch,
) -> Result<(Wan, Option<Pillar>)> {
    let log = place.log("wan");
    let work = async {
        let (mut wan, relay) = wan::lay(options, program, &log, watch).await?;
        for switches in switches {
            switches.plug_border().await?;
        }
        if switches.is_empty() {
            wan::limit(&mut wan, options, program, &log).await?;
        }
        Ok((wan, relay))
    };
    let (wan, relay) = step("wide-area link", 120, Some(&log), work).await?;
    let detail = if switches.is_empty() {
        let carries = wan
            .carries
            .map(|rate| format!(", which carries {:.1} Gb/s here", rate.bps() as f64 / 1e9));
        format!(
            "{}, round trip {:.2} ms measured, delay by {}{} (simulated)",
            options.wan,
            wan.rtt_us as f64 / 1000.0,
            wan.delay_by,
            carries.unwrap_or_default()
        )
    } else {
        format!("delay by {} (simulated)", wan.delay_by)
    };
    tell(&Event::Done { detail });
    Ok((wan, relay))
}

/// The lowest rate that is tried.
const LOWEST: Rate = Rate::from_bps(switches::RUNGS[0] * 1_000_000);

/// Tries what the switches carry with the link between them, limits that link, and leaves the
/// switches to their controllers. Gives the rate, and a word to the reader when more was asked.
async fn try_switches(
    options: &mut Options,
    place: &Place,
    program: &Path,
    all: &[Switches],
    wan: &mut Wan,
) -> Result<(Option<Rate>, Option<String>)> {
    let log = place.log("wan");
    let limit = switches::trial_time(options.rtt.duration()).as_secs() + 60;
    let work = async {
        for switches in all {
            switches.begin_trial(options.mtu).await?;
        }
        let carries = openvswitch::try_out(options.mtu, async |rate| {
            wan::paced_stream(options, program, &log, rate).await
        })
        .await?;
        if options.wan_at_most {
            options.wan = options.wan.min(carries.unwrap_or(LOWEST));
        }
        wan::limit(wan, options, program, &log).await?;
        for switches in all {
            switches.end_trial().await?;
            switches.obey().await?;
        }
        Ok(carries)
    };
    let carries = step("switches", limit, Some(&log), work).await?;
    let said = carries.map_or_else(|| format!("less than {LOWEST}"), |rate| rate.to_string());
    tell(&Event::Done {
        detail: format!(
            "they carry {said} of paced frames here; wide-area link {}, round trip {:.2} ms measured (simulated)",
            options.wan,
            wan.rtt_us as f64 / 1000.0,
        ),
    });
    let note = carries.is_none_or(|rate| rate < options.wan).then(|| {
        format!(
            "the wide-area link is {}, and this machine's switches carry {said}: a slice above that is promised and not kept; give --wan {} or less",
            options.wan,
            carries.unwrap_or(LOWEST)
        )
    });
    if let Some(note) = &note {
        tell(&Event::Note(note.clone()));
    }
    Ok((carries, note))
}
