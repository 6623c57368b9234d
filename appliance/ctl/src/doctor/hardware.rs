//! Which NICs are looked at, and where each is: those that the configuration gives, at home or in the
//! sandbox of a pod; without a configuration, all that are hardware.

use crate::cli::Context;
use dtn_api::{Rate, Span, nic::Nic};
use dtn_link::{Conn, inventory::Inventory};
use dtn_tuning::{
    Path,
    health::{
        self, Finding, Findings, Level,
        host::HostHealth,
        look::{Inside, Machine, Wanted},
        nic::{NicHealth, Surroundings},
    },
};
use dtnd::{Config, Places};
use std::time::Duration;

/// What was seen.
pub(super) struct Seen {
    pub(super) findings: Vec<Finding>,
    pub(super) nics: Vec<NicHealth>,
    pub(super) host: HostHealth,
}

/// Where a data folder is when nobody says.
const DATA: &str = "/srv/dtn";

pub(super) async fn look(context: &Context, config: Option<&Config>, over: Span) -> Seen {
    let mut say = Findings::of("host");
    let wanted = match config {
        Some(config) => given(context, config, &mut say).await,
        None => hardware(&mut say).await,
    };
    let machine = Machine::system();
    let data = config.map_or(std::path::Path::new(DATA), |config| {
        config.data_dir.as_path()
    });
    let (nics, host) = tokio::join!(
        health::look::nics(&machine, &wanted, Duration::from_millis(over.millis())),
        health::look::host(&machine, Some(data)),
    );
    let around = Surroundings {
        numa_nodes: host.machine.numa_nodes,
        processors: host.machine.processors,
        disk_nodes: host
            .data
            .iter()
            .flat_map(|room| &room.disks)
            .filter_map(|disk| disk.pcie.numa_node)
            .collect(),
    };
    let mut findings = say.done();
    for nic in &nics {
        findings.extend(health::nic::judge(nic, &around));
    }
    let fastest = nics
        .iter()
        .filter_map(|nic| Some((nic.best()?, nic.link.as_ref().map_or(1500, |link| link.mtu))))
        .max();
    let path = fastest.map(|(rate, mtu)| path(rate, mtu, config));
    findings.extend(health::host::judge(&host, path.as_ref(), &nics));
    Seen {
        findings,
        nics,
        host,
    }
}

fn path(rate: Rate, mtu: u32, config: Option<&Config>) -> Path {
    Path {
        rate,
        rtt: config.map_or(Span::from_millis(100), |config| config.rtt),
        mtu,
        streams: 1,
        memory_limit: None,
    }
}

/// The NICs of the configuration, and those of it that are not there.
async fn given(context: &Context, config: &Config, say: &mut Findings) -> Vec<Wanted> {
    let places = Places::new(&context.place.root);
    let look = match dtnd::Inventory::new(config, &places).look().await {
        Ok(look) => look,
        Err(problem) => {
            say.say(
                Level::Note,
                "not looked at",
                format!("which NICs pods have: {}", problem.detail),
            );
            return hardware(say).await;
        }
    };
    let (records, _) = dtnd::inventory::records(&places);
    let inside = |nic: &Nic| {
        records.iter().find_map(|record| {
            let held = record.interfaces.iter().find(|held| {
                nic.used_by.contains(&record.key)
                    && held.class == dtn_api::nic::NicClass::Dedicated
                    && held.before.name == nic.name.as_str()
            })?;
            Some(Inside {
                key: record.key.clone(),
                netns: held.netns.clone(),
                ifname: held.ifname.to_string(),
            })
        })
    };
    let mut wanted: Vec<Wanted> = look
        .nics
        .iter()
        .filter(|nic| nic.class.is_some())
        .map(|nic| Wanted {
            name: nic.name.to_string(),
            class: nic.class,
            stated: look_up(config, &places, nic),
            guarded: nic.guarded.clone(),
            pci: nic.identity.pci.clone(),
            inside: inside(nic),
        })
        .collect();
    // named, and not there: judged as that
    wanted.extend(look.missing.iter().map(|selector| Wanted {
        name: selector.to_string(),
        class: None,
        stated: None,
        guarded: Vec::new(),
        pci: None,
        inside: None,
    }));
    if wanted.is_empty() {
        say.mend(
            Level::Warning,
            "nics",
            "the configuration gives none to the appliance",
            "add a [[nic]]",
            "dtnctl nics",
        );
    }
    wanted
}

/// The speed that the configuration states of a NIC.
fn look_up(config: &Config, places: &Places, nic: &Nic) -> Option<Rate> {
    let inventory = dtnd::Inventory::new(config, places);
    inventory.configured(nic).and_then(|found| found.speed)
}

/// All links that are hardware.
async fn hardware(say: &mut Findings) -> Vec<Wanted> {
    let links = async { Inventory::read(&Conn::current()?).await };
    match links.await {
        Ok(found) => found
            .links
            .iter()
            .filter(|link| link.kind.is_none() && link.device.is_some())
            .map(|link| Wanted {
                name: link.name.clone(),
                class: None,
                stated: None,
                guarded: Vec::new(),
                pci: None,
                inside: None,
            })
            .collect(),
        Err(error) => {
            say.say(Level::Note, "not looked at", format!("NICs: {error}"));
            Vec::new()
        }
    }
}
