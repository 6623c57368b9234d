//! The run's whole way once the sites are up: slice, pods, files, and the evidence of it as table,
//! JSON and plot.

use crate::{
    capsule::{Lab, step},
    fault, gateway, onos,
    options::Fabric,
    pillar::Pillar,
    place::SITES,
    pods::{self, Runner, Running},
    progress::{Event, tell},
    scenario::{self, Agreed},
    shell::{self, SHORT},
    site::Site,
    switches, transfer,
};
use anyhow::{Context, Result, ensure};
use dtn_api::Rate;
use dtn_measure::{
    plot::{Curve, goodput_svg},
    report::{
        Direction, EngineEvidence, FabricEvidence, GatewayEvidence, PodEvidence, REPORT_VERSION,
        Report, SliceEvidence, TransferEvidence, WanEvidence,
    },
    verdict::LimitedBy,
};
use std::{fs, path::Path, time::Duration};

/// Reserves, deploys, moves, reports; without `keep` also gives everything back. Gives a supervisor
/// that was started again, which ends when it is let go.
pub async fn run(lab: &Lab, keep: bool) -> Result<Option<Pillar>> {
    let (options, logs) = (&lab.options, lab.place.logs());
    let agreed = step(
        "slice from end to end",
        180,
        Some(&logs),
        scenario::reserve(&lab.daemons, options),
    )
    .await?;
    let asked = options
        .rate
        .map_or_else(|| "the most".to_owned(), |rate| rate.to_string());
    tell(&Event::Done {
        detail: format!(
            "{asked} asked, {} {} agreed, held and committed in both domains; limited by {}",
            agreed.rate, options.class, agreed.limited_by
        ),
    });
    let active = scenario::watch_active(&lab.daemons, agreed.asked);
    let deploy = async {
        scenario::lay_keys(&lab.place, &SITES)?;
        let wanted = scenario::transfer(options);
        let pods = lab.sites.iter();
        let pods = pods.map(async |site| pods::deploy(lab, site, &wanted).await);
        futures_util::future::try_join_all(pods).await
    };
    let pods = step("transfer pods at both sites", 180, Some(&logs), deploy).await?;
    let addresses: Vec<_> = pods
        .iter()
        .map(|pod| {
            let all: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
            all.join(" ")
        })
        .collect();
    tell(&Event::Done {
        detail: format!("{} NIC, {}", options.nic, addresses.join(" and ")),
    });

    let ends: Vec<_> = lab
        .sites
        .iter()
        .zip(&pods)
        .map(|(site, pod)| transfer::End { site, pod })
        .collect();
    let [one, other] = ends.as_slice() else {
        anyhow::bail!("{} ends are there, and two are needed", ends.len())
    };
    let look = async {
        for daemons in &lab.daemons {
            if let Some(warning) = scenario::enforced(daemons).await? {
                tell(&Event::Note(format!("{}: {warning}", daemons.site)));
            }
        }
        transfer::check(lab, one, other).await?;
        active.await.context("watching for the data plane")
    };
    let active = step(
        "the slice is enforced, and the far server takes the key and nothing else",
        180,
        Some(&logs),
        look,
    )
    .await?;
    tell(&Event::Done {
        detail: "IPv4 and IPv6 reach it; a write without the key is refused".into(),
    });

    let wire = agreed.ceiling.bps() as f64 / agreed.rate.bps().max(1) as f64;
    let mut directions: Vec<Direction> = Vec::new();
    // the supervisor that was started again, held until the end
    let mut again = None;
    let ways = if options.both {
        vec![(one, other), (other, one)]
    } else {
        vec![(one, other)]
    };
    for (from, to) in ways {
        let name = format!("files from {} to {}", from.site.name, to.site.name);
        // the movers have deadlines of their own, which know the rate
        let moved = transfer::one_way(lab, from, to, agreed.ceiling.bps(), wire);
        let moved = async {
            if !options.kill_supervisor || from.site.index != 0 {
                return moved.await;
            }
            let daemons = lab.daemons.first().context("no site is up")?;
            let known = fault::before(daemons, options.engine).await?;
            let (moved, ()) = tokio::try_join!(moved, fault::kill_while_files_move(daemons, to))?;
            again = Some(fault::after(lab, 0, &known).await?);
            tell(&Event::Note(format!(
                "dtnd of {} was killed while files moved; they went on, and started again it knows pod, lease and slice as before",
                daemons.site
            )));
            Ok(moved)
        };
        let direction = step(&name, 24 * 3600, Some(&lab.place.log("lab")), moved).await?;
        tell(&Event::Done {
            detail: format!(
                "{} at {:.1} Mb/s",
                dtn_api::Size::from_bytes(direction.transfer.bytes).rounded(),
                direction.transfer.goodput_bps as f64 / 1e6
            ),
        });
        directions.push(direction);
    }
    let fabric = fabric(lab, active, &pods).await?;
    let mut report = report(lab, &agreed, fabric, directions)?;
    report.engine = engine(lab).await?;
    report.pods = lab.sites.iter().zip(&pods).map(pod).collect();
    let tried = gateways(lab).await;
    if let Ok(gateways) = &tried {
        report.gateways.clone_from(gateways);
    }
    // what was measured before is told in any case
    write(lab, &report)?;
    tell(&Event::Table(report.table()));
    tried?;
    if !keep {
        let end = async {
            let pods = lab.sites.iter();
            let pods = pods.map(async |site| pods::undeploy(lab, site, scenario::POD).await);
            let pods = futures_util::future::try_join_all(pods);
            tokio::try_join!(gateway::give_back(lab), pods)?;
            let first = lab.daemons.first().context("no site is up")?;
            scenario::give_back(first, scenario::SLICE).await
        };
        step(
            "pods down, NICs home, leases and slice given back",
            120,
            Some(&logs),
            end,
        )
        .await?;
        tell(&Event::Done {
            detail: String::new(),
        });
    }
    ensure!(
        report.checksums_ok,
        "the trees differ: the report says where"
    );
    for gateway in &report.gateways {
        ensure!(
            gateway.ok,
            "the gateway of {} did not do what its rules say: {}; the report has all of it",
            gateway.site,
            gateway.said()
        );
    }
    Ok(again)
}

/// Who may pass the gateways, tried when nothing is measured any more.
async fn gateways(lab: &Lab) -> Result<Vec<GatewayEvidence>> {
    let logs = lab.place.logs();
    let tried = step(
        "gateways: what no rule allows is dropped, both ways",
        180,
        Some(&logs),
        gateway::run(lab),
    )
    .await?;
    let wrong = tried.iter().filter(|gateway| !gateway.ok).count();
    tell(&Event::Done {
        detail: match wrong {
            0 => "connections pass as the access rules say, and as the controller explains".into(),
            some => format!("{some} of {} did NOT do what their rules say", tried.len()),
        },
    });
    Ok(tried)
}

/// What enforced the slice; the meters' counters go with the slice.
async fn fabric(lab: &Lab, active: Duration, pods: &[Running]) -> Result<FabricEvidence> {
    let mut drops = None;
    for switches in &lab.switches {
        *drops.get_or_insert(0) += switches.meter_drops().await?;
    }
    let mut hosts = Vec::new();
    if lab.options.fabric == Fabric::Onos {
        for (site, pod) in lab.sites.iter().zip(pods) {
            hosts.push(onos::hosts::listed(lab, site, pod).await?);
        }
    }
    let switches = lab.switches.len() * switches::BRIDGES.len();
    Ok(FabricEvidence {
        kind: lab.options.fabric.to_string(),
        by: (lab.options.fabric == Fabric::Onos).then(|| lab.options.onos.label()),
        switches: u32::try_from(switches).unwrap_or(u32::MAX),
        carries_bps: lab.switches_carry.map(Rate::bps),
        request_to_active_ms: Some(active.as_secs_f64() * 1000.0),
        meter_drops: drops,
        hosts,
    })
}

/// What ran the pods.
async fn engine(lab: &Lab) -> Result<EngineEvidence> {
    let first = lab.sites.first().context("no site is up")?;
    let version = match lab.runner(first)? {
        Runner::Kubernetes(cluster) => Some(cluster.kit.version.clone()),
        Runner::Podman { .. } => {
            let said = shell::run("podman", ["--version"], SHORT).await?;
            said.split_whitespace().last().map(str::to_owned)
        }
    };
    Ok(EngineEvidence {
        kind: lab.options.engine.to_string(),
        version,
    })
}

fn pod((site, running): (&Site, &Running)) -> PodEvidence {
    PodEvidence {
        site: site.name.into(),
        name: running.name.clone(),
        addresses: running.addresses.iter().map(ToString::to_string).collect(),
        ready_ms: running.ready.as_secs_f64() * 1000.0,
    }
}

fn report(
    lab: &Lab,
    agreed: &Agreed,
    fabric: FabricEvidence,
    directions: Vec<Direction>,
) -> Result<Report> {
    let (options, wan) = (&lab.options, &lab.wan);
    let mut report = Report {
        version: REPORT_VERSION,
        appliance: env!("CARGO_PKG_VERSION").into(),
        ended_at: jiff::Timestamp::now().to_string(),
        sites: SITES.iter().map(|site| (*site).to_owned()).collect(),
        nic: options.nic.to_string(),
        engine: EngineEvidence::default(),
        pods: Vec::new(),
        mtu: options.mtu,
        rtt_ms: options.rtt.millis() as f64,
        slice: SliceEvidence {
            name: scenario::SLICE.into(),
            class: options.class.to_string(),
            rate_bps: agreed.rate.bps(),
            ceiling_bps: agreed.ceiling.bps(),
            asked_bps: options.rate.map(Rate::bps),
            limited_by: agreed.limited_by.clone(),
        },
        wan: WanEvidence {
            rate_bps: options.wan.bps(),
            delay_by: wan.delay_by.to_string(),
            carries_bps: wan.carries.map(Rate::bps),
            measured_rtt_ms: Some(wan.rtt_us as f64 / 1000.0),
        },
        fabric,
        transfer: TransferEvidence {
            files: 0,
            bytes: 0,
            seconds: 0.0,
            goodput_bps: 0,
            retransmits: 0,
        },
        large_file: None,
        small_files: None,
        share_of_ceiling: 0.0,
        checksums_ok: false,
        limited_by: LimitedBy::Tool,
        simulated_wire: true,
        directions,
        gateways: Vec::new(),
        machine: machine()?,
        notes: lab.notes.clone(),
    };
    report.lift_first_direction();
    Ok(report)
}

/// Kernel, processors and memory of this machine.
fn machine() -> Result<String> {
    let mut system = sysinfo::System::new()
        .map_err(|error| anyhow::anyhow!("asking for the memory: {error:?}"))?;
    system.refresh_memory();
    let kernel =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    let processors = std::thread::available_parallelism().context("counting processors")?;
    Ok(format!(
        "Linux {}, {processors} processors, {}",
        kernel.trim(),
        dtn_api::Size::from_bytes(system.total_memory()).rounded()
    ))
}

/// The JSON and the plot, in the state folder; the outer process puts them where they were asked
/// for, which need not be a place that the capsule sees.
fn write(lab: &Lab, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(report).context("writing the report")? + "\n";
    let names: Vec<_> = report
        .directions
        .iter()
        .map(|way| format!("{} → {}", way.from, way.to))
        .collect();
    let curves: Vec<_> = names
        .iter()
        .zip(&report.directions)
        .map(|(name, way)| Curve {
            name,
            points: &way.series,
        })
        .collect();
    let title = format!(
        "Goodput over time, simulated wire: {}, MTU {}, RTT {} ms",
        Rate::from_bps(report.slice.rate_bps),
        report.mtu,
        report.rtt_ms
    );
    let svg = goodput_svg(&title, report.slice.ceiling_bps, &curves)?;
    let own = lab.place.report();
    let own_plot = own.with_extension("svg");
    put(&own, &json)?;
    put(&own_plot, &svg)?;
    tell(&Event::Reported);
    Ok(())
}

fn put(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}
