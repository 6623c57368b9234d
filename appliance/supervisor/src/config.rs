//! The supervisor's configuration: TOML and drop-ins in, a [`Config`] that cannot be wrong out.
//!
//! Layers, the later wins: built-in defaults < `dtnd.toml` < `dtnd.toml.d/*.toml` in the order of
//! their names (tables are merged, lists are appended to). All problems are found in one pass, each
//! with the path of its field and the file it stands in; nothing is used when there is one.
//! `config/dtnd.toml` of the source tree is the reference: every field with its meaning.

mod gateways;
mod kubernetes;

pub use gateways::GatewayConfig;
pub use kubernetes::KubernetesConfig;

use dtn_api::{
    IfName, MacAddress, Name, PciAddress, Rate, Span,
    layered::{self, Reader},
    nic::NicClass,
};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use dtn_api::layered::{ConfigError, ConfigProblem, Loaded, Severity};

/// Where the configuration is looked for when no other file is named.
pub const DEFAULT_FILE: &str = "/etc/dtn/dtnd.toml";
/// The only version of the format so far.
pub const VERSION: i64 = 1;

/// Every field, by its table; the first is the file itself.
pub const FIELDS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "version",
            "host",
            "nic",
            "gateway",
            "podman",
            "kubernetes",
            "cni",
            "workloads",
            "data",
            "tuning",
            "log",
            "metrics",
        ],
    ),
    ("host", &["name"]),
    (
        "nic",
        &["name", "pci", "mac", "class", "speed", "share-with"],
    ),
    (
        "gateway",
        &[
            "name",
            "inside",
            "outside",
            "addresses",
            "routers",
            "networks",
            "nat",
        ],
    ),
    ("podman", &["socket"]),
    ("kubernetes", &["node", "kubeconfig", "kubelet-dir"]),
    ("cni", &["bin-dir"]),
    ("workloads", &["dir"]),
    ("data", &["dir"]),
    ("tuning", &["rtt"]),
    ("log", &["level"]),
    ("metrics", &["listen"]),
];

fn fields(table: &str) -> &'static [&'static str] {
    FIELDS
        .iter()
        .find(|(name, _)| *name == table)
        .map_or(&[], |(_, keys)| keys)
}

/// Reads the configuration at `file` with its drop-ins.
pub fn load(file: &Path) -> Result<Loaded<Config>, ConfigError> {
    layered::load(file, Config::read)
}
/// Every problem of the configuration at `file`, warnings too. An absent file is an error still.
pub fn check_file(file: &Path) -> Result<Vec<ConfigProblem>, ConfigError> {
    layered::check_file(file, Config::read)
}

/// How the site tells one of its NICs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NicSelector {
    /// By its name on the host.
    Name(IfName),
    /// By where it sits.
    Pci(PciAddress),
    /// By its permanent hardware address, or the current one where the driver tells none.
    Mac(MacAddress),
}
impl fmt::Display for NicSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "name {name}"),
            Self::Pci(pci) => write!(f, "PCI address {pci}"),
            Self::Mac(mac) => write!(f, "MAC address {mac}"),
        }
    }
}

/// A NIC that the site gives to the appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicConfig {
    /// Which.
    pub selector: NicSelector,
    /// How pods get it.
    pub class: NicClass,
    /// Its speed, where its driver tells none (a virtual link) or the site wants to give less.
    pub speed: Option<Rate>,
    /// Whether federated domains may see it and ask for slices to it.
    pub permitted: bool,
}

/// A valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This host's name in its domain.
    pub host: Name,
    /// The NICs that the site gives.
    pub nics: Vec<NicConfig>,
    /// The gateways that this host shall be.
    pub gateways: Vec<GatewayConfig>,
    /// Socket of podman's REST service.
    pub podman_socket: PathBuf,
    /// The Kubernetes node that this host is, where it is one.
    pub kubernetes: Option<KubernetesConfig>,
    /// Folder of the CNI plugin binaries.
    pub cni_bin_dir: PathBuf,
    /// Folder of the pod templates.
    pub workload_dir: PathBuf,
    /// Folder below which pods keep their data, one folder per pod.
    pub data_dir: PathBuf,
    /// Round trip that buffers are sized for.
    pub rtt: Span,
    /// What is logged, in the language of `DTN_LOG`, which goes before it.
    pub log: String,
    /// Loopback address on which metrics are served beside the socket.
    pub metrics_listen: Option<SocketAddr>,
}

impl Config {
    /// Reads the merged tables. Every problem goes to the reader; a value that could not be read
    /// is replaced by something harmless, as the result is not used then.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        for (table, keys) in FIELDS
            .iter()
            .filter(|(table, _)| !matches!(*table, "nic" | "gateway"))
        {
            reader.known(table, keys);
        }
        match reader.integer("version") {
            Some(VERSION) => {}
            Some(other) => reader.error(
                "version",
                format!("{other} is not known to this build: it reads version {VERSION}"),
            ),
            None => reader.missing("version", "write version = 1"),
        }
        let host = reader.parse::<Name>("host.name");
        if host.is_none() {
            reader.missing(
                "host.name",
                "write the host's name in its domain, as \"dtn1\"",
            );
        }
        let nics = read_nics(reader);
        let gateways = gateways::read(reader, &nics);
        let rtt = reader.parse::<Span>("tuning.rtt");
        if rtt.is_some_and(|rtt| rtt.millis() == 0 || rtt > Span::from_secs(10)) {
            reader.error("tuning.rtt", "must be between 1ms and 10s".into());
        }
        let metrics_listen = reader.parse::<SocketAddr>("metrics.listen");
        if metrics_listen.is_some_and(|address| !address.ip().is_loopback()) {
            reader.error(
                "metrics.listen",
                "must be a loopback address, as \"127.0.0.1:9464\": metrics are served without TLS"
                    .into(),
            );
        }
        let log = reader.text("log.level").unwrap_or_else(|| "info".into());
        if let Err(e) = log.parse::<tracing_subscriber::filter::Targets>() {
            reader.error(
                "log.level",
                format!("{log:?} is not a level or filter: {e}"),
            );
        }
        let kubernetes = kubernetes::read(reader, host.as_ref());
        Some(Self {
            host: host?,
            nics,
            gateways,
            kubernetes,
            podman_socket: reader.path("podman.socket", "/run/podman/podman.sock"),
            cni_bin_dir: reader.path("cni.bin-dir", "/opt/cni/bin"),
            workload_dir: reader.path("workloads.dir", "/usr/share/dtn/workloads"),
            data_dir: reader.path("data.dir", "/srv/dtn"),
            rtt: rtt.unwrap_or(Span::from_millis(100)),
            log,
            metrics_listen,
        })
    }
}

fn read_nics(reader: &mut Reader<'_>) -> Vec<NicConfig> {
    let mut nics: Vec<NicConfig> = Vec::new();
    let count = reader.tables("nic");
    if count == 0 {
        reader.warning(
            "nic",
            "no NIC is given to the appliance: pods cannot be deployed until there is a [[nic]]"
                .into(),
        );
    }
    for index in 0..count {
        let at = format!("nic[{index}]");
        reader.known(&at, fields("nic"));
        let before = reader.errors();
        let selectors: Vec<NicSelector> = [
            reader
                .parse::<IfName>(&format!("{at}.name"))
                .map(NicSelector::Name),
            reader
                .parse::<PciAddress>(&format!("{at}.pci"))
                .map(NicSelector::Pci),
            reader
                .parse::<MacAddress>(&format!("{at}.mac"))
                .map(NicSelector::Mac),
        ]
        .into_iter()
        .flatten()
        .collect();
        if reader.errors() == before && selectors.len() != 1 {
            reader.error(
                &at,
                "name it by exactly one of name, pci and mac (pci and mac stay the same when a \
                 kernel names it anew)"
                    .into(),
            );
        }
        let class = reader.parse::<NicClass>(&format!("{at}.class"));
        if class.is_none() {
            reader.missing(&format!("{at}.class"), "write dedicated or shared");
        }
        let speed = reader.parse::<Rate>(&format!("{at}.speed"));
        if speed == Some(Rate::from_bps(0)) {
            reader.error(&format!("{at}.speed"), "must be more than 0".into());
        }
        let permitted = match reader.text(&format!("{at}.share-with")).as_deref() {
            None | Some("nobody") => false,
            Some("federation") => true,
            Some(other) => {
                reader.error(
                    &format!("{at}.share-with"),
                    format!("{other:?} is not known: write \"federation\" or \"nobody\""),
                );
                false
            }
        };
        let Some(selector) = selectors.into_iter().next() else {
            continue;
        };
        if let Some(first) = nics.iter().position(|nic| nic.selector == selector) {
            reader.error(&at, format!("{selector} is given already, by nic[{first}]"));
        }
        nics.push(NicConfig {
            selector,
            class: class.unwrap_or(NicClass::Dedicated),
            speed,
            permitted,
        });
    }
    nics
}

/// A valid configuration for tests of other modules.
#[cfg(test)]
pub(crate) fn example(host: &str) -> Config {
    Config {
        host: host.parse().unwrap(),
        nics: Vec::new(),
        gateways: Vec::new(),
        podman_socket: "/run/podman/podman.sock".into(),
        kubernetes: None,
        cni_bin_dir: "/opt/cni/bin".into(),
        workload_dir: "/usr/share/dtn/workloads".into(),
        data_dir: "/srv/dtn".into(),
        rtt: Span::from_millis(100),
        log: "info".into(),
        metrics_listen: None,
    }
}
