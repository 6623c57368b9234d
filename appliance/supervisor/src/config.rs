//! The supervisor's configuration: TOML and drop-ins in, a [`Config`] that cannot be wrong out.
//!
//! It is the host's part of the one file `appliance.toml`; the domain's part is vdnd's. Layers, the
//! later wins: built-in defaults < the maker's < `appliance.toml` < `appliance.d/*.toml` in the order
//! of their names < the command line (tables are merged, lists are appended to). All problems are
//! found in one pass, each with the path of its field and the line it stands in; nothing is used
//! when there is one. `config/appliance.toml` of the source tree is the reference: every field with
//! its meaning.

mod gateways;
mod kubernetes;
mod tables;

pub use dtn_api::Pattern;
pub use gateways::GatewayConfig;
pub use kubernetes::KubernetesConfig;
pub use tables::TABLES;

use dtn_api::{
    IfName, MacAddress, Name, PciAddress, Rate, Span,
    layered::{self, DOMAIN_TABLES, HOST_TABLES, Reader},
    nic::NicClass,
};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub use dtn_api::layered::{
    ConfigError, ConfigProblem, DEFAULT_FILE, Loaded, Setting, Severity, Sources,
};

/// The only version of the format so far.
pub const VERSION: i64 = 1;

fn fields(table: &str) -> Vec<&'static str> {
    layered::fields::keys(TABLES, table)
}

/// Reads the configuration at `file` with its drop-ins.
pub fn load(file: &Path) -> Result<Loaded<Config>, ConfigError> {
    load_from(&Sources::new(file))
}
/// Reads the configuration that these layers make.
pub fn load_from(sources: &Sources) -> Result<Loaded<Config>, ConfigError> {
    layered::load(sources, TABLES, Config::read)
}
/// Every problem of the configuration at `file`, warnings too. An absent file is an error still.
pub fn check_file(file: &Path) -> Result<Vec<ConfigProblem>, ConfigError> {
    check(&Sources::new(file))
}
/// Every problem of the configuration that these layers make, warnings too.
pub fn check(sources: &Sources) -> Result<Vec<ConfigProblem>, ConfigError> {
    layered::check(sources, Config::read)
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
    /// Each whose name on the host is like this.
    Names(Pattern),
    /// Each that sits where the address is like this.
    Slots(Pattern),
}
impl NicSelector {
    /// Whether it can mean several NICs.
    pub fn is_pattern(&self) -> bool {
        matches!(self, Self::Names(_) | Self::Slots(_))
    }
    /// Whether this is how a file writes it.
    pub fn is_written(&self, text: &str) -> bool {
        match self {
            Self::Name(name) => name.as_str() == text,
            Self::Names(pattern) => pattern.to_string() == text,
            Self::Pci(pci) => pci.to_string().eq_ignore_ascii_case(text),
            Self::Mac(mac) => mac.to_string().eq_ignore_ascii_case(text),
            Self::Slots(pattern) => pattern.to_string().eq_ignore_ascii_case(text),
        }
    }
    /// Whether both can mean the same NIC, as far as the file alone can tell.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Names(pattern), Self::Name(name)) | (Self::Name(name), Self::Names(pattern)) => {
                pattern.matches(name.as_str())
            }
            (Self::Slots(pattern), Self::Pci(pci)) | (Self::Pci(pci), Self::Slots(pattern)) => {
                pattern.matches(pci.as_ref())
            }
            (Self::Names(a), Self::Names(b)) | (Self::Slots(a), Self::Slots(b)) => {
                a == b || a.may_meet(b)
            }
            _ => self == other,
        }
    }
}
impl fmt::Display for NicSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "name {name}"),
            Self::Pci(pci) => write!(f, "PCI address {pci}"),
            Self::Mac(mac) => write!(f, "MAC address {mac}"),
            Self::Names(pattern) => write!(f, "name {pattern}"),
            Self::Slots(pattern) => write!(f, "PCI address {pattern}"),
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
        reader.known("", &layered::top_level());
        let single = TABLES.iter().filter(|table| !table.many());
        for table in single.filter(|table| !table.name.is_empty()) {
            reader.known(table.name, &table.keys());
        }
        reader.version(VERSION);
        if !reader.has_any(HOST_TABLES) && reader.has_any(DOMAIN_TABLES) {
            let why = "is missing: it is [host] with a name that makes a host a DTN; write it, or do \
                       not start dtnd here";
            reader.error("host", why.into());
            return None;
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
        reader.known(&at, &fields("nic"));
        let before = reader.errors();
        let selectors: Vec<NicSelector> = [
            read_name(reader, &format!("{at}.name")),
            read_slot(reader, &format!("{at}.pci")),
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
        if let Some(first) = nics.iter().position(|nic| nic.selector.meets(&selector)) {
            let why = match &nics[first].selector {
                same if *same == selector => {
                    format!("{selector} is given already, by nic[{first}]")
                }
                other => format!(
                    "{selector} and {other} of nic[{first}] can be the same NIC: let one of them \
                     match less"
                ),
            };
            reader.error(&at, why);
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

/// A name, or a pattern of names.
fn read_name(reader: &mut Reader<'_>, path: &str) -> Option<NicSelector> {
    if !is_pattern(reader, path) {
        return reader.parse::<IfName>(path).map(NicSelector::Name);
    }
    let pattern = reader.parse::<Pattern>(path)?;
    // "e*" would be nearly every NIC that there is
    if pattern.start().len() < 2 {
        let why = format!(
            "{:?} matches too much: begin with two letters at least, as \"ens*\"",
            pattern.to_string()
        );
        reader.error(path, why);
        return None;
    }
    Some(NicSelector::Names(pattern))
}

/// A PCI address, or a pattern of them.
fn read_slot(reader: &mut Reader<'_>, path: &str) -> Option<NicSelector> {
    if !is_pattern(reader, path) {
        return reader.parse::<PciAddress>(path).map(NicSelector::Pci);
    }
    let pattern: Pattern = reader.parse::<Pattern>(path)?.in_lower_case();
    // "0000:" is where everything sits
    if pattern.start().len() < 6 {
        let why = format!(
            "{:?} matches too much: begin with the bus at least, as \"0000:3b:*\"",
            pattern.to_string()
        );
        reader.error(path, why);
        return None;
    }
    Some(NicSelector::Slots(pattern))
}

/// Whether a pattern is written there; what is no text is told by who reads it.
fn is_pattern(reader: &Reader<'_>, path: &str) -> bool {
    reader.is_text(path, Pattern::is_meant)
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
