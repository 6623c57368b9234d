//! The controller's configuration: TOML and drop-ins in, a [`Config`] that cannot be wrong out.
//!
//! It is the domain's part of the one file `appliance.toml`; the host's part is dtnd's.
//! `config/appliance.toml` of the source tree is the reference: every field with its meaning.

use crate::{
    addresses::Plan,
    auth,
    fabric::{Border, network::Place},
    labels::Labels,
};
use dtn_api::{
    Name, Rate, Span,
    layered::{self, DOMAIN_TABLES, HOST_TABLES, Reader},
};
use ipnet::{Ipv4Net, Ipv6Net};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

mod tables;
mod wiring;

pub use tables::TABLES;
pub use wiring::FabricConfig;

pub use dtn_api::layered::{
    ConfigError, ConfigProblem, DEFAULT_FILE, Loaded, Setting, Severity, Sources,
};

/// The only version of the format so far.
pub const VERSION: i64 = 1;

/// The controller's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The domain.
    pub domain: Name,
    /// Where TLS is served.
    pub listen: SocketAddr,
    /// How hosts and other domains reach it.
    pub url: String,
    /// Names and addresses for the server's certificate.
    pub names: Vec<String>,
    /// Links to other domains.
    pub borders: Vec<Border>,
    /// What enforces slices.
    pub fabric: FabricConfig,
    /// Where slices' subnets come from.
    pub addresses: Plan,
    /// Longest window of a slice, in seconds.
    pub longest_window: u64,
    /// File with the operator's token.
    pub token_file: Option<PathBuf>,
    /// What is logged, in the language of `DTN_LOG`, which goes before it.
    pub log: String,
}

/// Reads a configuration with its drop-ins.
pub fn load(file: &Path) -> Result<Loaded<Config>, ConfigError> {
    load_from(&Sources::new(file))
}
/// Reads the configuration that these layers make.
pub fn load_from(sources: &Sources) -> Result<Loaded<Config>, ConfigError> {
    layered::load(sources, TABLES, read)
}
/// Every problem of a configuration, warnings too.
pub fn check_file(file: &Path) -> Result<Vec<ConfigProblem>, ConfigError> {
    check(&Sources::new(file))
}
/// Every problem of the configuration that these layers make, warnings too.
pub fn check(sources: &Sources) -> Result<Vec<ConfigProblem>, ConfigError> {
    layered::check(sources, read)
}

fn read(reader: &mut Reader<'_>) -> Option<Config> {
    let config = Config::read(reader);
    for field in ["operator.token-file", "fabric.credentials-file"] {
        secret(reader, field);
    }
    config
}

/// Whether a text says where a secret is: an absolute path, or a credential of the service manager.
fn names_a_secret(file: &Path) -> bool {
    let credential = file
        .to_str()
        .is_some_and(|file| file.starts_with("credential:"));
    credential || file.is_absolute()
}

/// Refuses a secret that others can read. One that is not there is told by who needs it: the service
/// manager can bring it later.
fn secret(reader: &mut Reader<'_>, field: &str) {
    use std::os::unix::fs::MetadataExt;
    if !reader.is_text(field, |_| true) {
        return;
    }
    let Some(file) = reader.text(field) else {
        return;
    };
    let mode = std::fs::metadata(&file).map(|found| found.mode() & 0o7777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let why = format!("{file} can be read by others (mode {mode:04o}): chmod 600 {file}");
        reader.error(field, why);
    }
}

fn fields(table: &str) -> Vec<&'static str> {
    layered::fields::keys(TABLES, table)
}

impl Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.known("", &layered::top_level());
        for table in ["domain", "listen", "addresses", "limits", "operator", "log"] {
            reader.known(table, &fields(table));
        }
        reader.version(VERSION);
        if !reader.has_any(DOMAIN_TABLES) && reader.has_any(HOST_TABLES) {
            let why = "is missing: it is [domain] with a name that makes a host the controller of \
                       one; write it, or do not start vdnd here";
            reader.error("domain", why.into());
            return None;
        }
        let domain = reader.parse::<Name>("domain.name");
        reader.missing("domain.name", "name this domain, as \"daejeon\"");
        let listen = reader.parse::<SocketAddr>("listen.address");
        reader.missing(
            "listen.address",
            "write ADDRESS:PORT, as \"192.0.2.10:8443\"",
        );
        let url = reader.text("listen.url");
        let (url, names) = Self::reached_at(reader, url, listen);
        let borders = (0..reader.tables("border"))
            .filter_map(|n| Self::border(reader, n))
            .collect::<Vec<_>>();
        for (n, border) in borders.iter().enumerate() {
            if borders[..n].iter().any(|other| other.name == border.name) {
                reader.error(
                    &format!("border[{n}].name"),
                    format!("{} is named twice", border.name),
                );
            }
            if Some(&border.peer_domain) == domain.as_ref() {
                let why = "is this domain: a border link leads to another one".to_owned();
                reader.error(&format!("border[{n}].peer-domain"), why);
            }
            if let Some(domain) = &domain
                && border
                    .labels
                    .offer(&Default::default(), domain, &border.peer_domain)
                    .is_empty()
            {
                let kind = if *domain > border.peer_domain {
                    "odd"
                } else {
                    "even"
                };
                let why = format!(
                    "has no {kind} VLAN, and this domain asks {} with {kind} ones: it can be asked, and cannot ask",
                    border.peer_domain
                );
                reader.warning(&format!("border[{n}].labels"), why);
            }
        }
        let fabric = wiring::read(reader, &borders);
        let addresses = Self::plan(reader);
        let window = reader
            .parse::<Span>("limits.window")
            .unwrap_or(Span::from_secs(90 * 86_400));
        if window.seconds() == 0 {
            reader.error("limits.window", "must be above 0s".into());
        }
        let token_file = reader.text("operator.token-file").map(PathBuf::from);
        if token_file
            .as_deref()
            .is_some_and(|file| !names_a_secret(file))
        {
            let why = "must be an absolute path, or credential:NAME";
            reader.error("operator.token-file", why.into());
        }
        let log = reader.text("log.level").unwrap_or_else(|| "info".into());
        if let Err(e) = log.parse::<tracing_subscriber::filter::Targets>() {
            let why = format!("{log:?} is not a level or filter: {e}");
            reader.error("log.level", why);
        }
        (reader.errors() == 0).then_some(())?;
        Some(Self {
            domain: domain?,
            listen: listen?,
            url: url?,
            names,
            borders,
            fabric: fabric?,
            addresses,
            longest_window: window.seconds(),
            token_file,
            log,
        })
    }

    /// The URL, and what the certificate must be good for: the host in it.
    fn reached_at(
        reader: &mut Reader<'_>,
        url: Option<String>,
        listen: Option<SocketAddr>,
    ) -> (Option<String>, Vec<String>) {
        let mut names = Vec::new();
        let url = match (url, listen) {
            (Some(url), _) => Some(url),
            (None, Some(listen)) if !listen.ip().is_unspecified() => {
                Some(format!("https://{listen}"))
            }
            (None, Some(listen)) => {
                let why = format!("is needed, since {listen} is no address to reach it at");
                reader.error("listen.url", why);
                None
            }
            (None, None) => None,
        };
        if let Some(url) = &url {
            match host_of(url) {
                Some(host) => names.push(host),
                None => reader.error(
                    "listen.url",
                    format!("{url:?}: write https://HOST:PORT without a path"),
                ),
            }
        }
        for name in reader
            .text("listen.names")
            .iter()
            .flat_map(|text| text.split_whitespace())
        {
            names.push(name.to_owned());
        }
        names.sort();
        names.dedup();
        (url, names)
    }

    fn border(reader: &mut Reader<'_>, n: usize) -> Option<Border> {
        let at = |field: &str| format!("border[{n}].{field}");
        reader.known(&format!("border[{n}]"), &fields("border"));
        let name = reader.parse::<Name>(&at("name"));
        reader.missing(&at("name"), "name the link, as \"wan\"");
        if name.as_ref().is_some_and(auth::reserved_name) {
            reader.error(
                &at("name"),
                "stands for something else: choose another".into(),
            );
        }
        let peer_domain = reader.parse::<Name>(&at("peer-domain"));
        reader.missing(&at("peer-domain"), "name the domain at its other end");
        let peer_ref = reader
            .parse::<Name>(&at("peer-ref"))
            .or_else(|| name.clone());
        let capacity = reader.parse::<Rate>(&at("capacity"));
        reader.missing(&at("capacity"), "write what it carries, as \"100Gbit\"");
        if capacity.is_some_and(|rate| rate.bps() == 0) {
            reader.error(&at("capacity"), "must be above 0bit".into());
        }
        let latency = reader.parse::<Span>(&at("latency")).unwrap_or_default();
        let mtu = mtu(reader, &at("mtu"));
        let labels = reader.parse::<Labels>(&at("labels")).unwrap_or_default();
        let place = reader.parse::<Place>(&at("at"));
        Some(Border {
            name: name?,
            peer_domain: peer_domain?,
            peer_ref: peer_ref?,
            capacity_bps: capacity?.bps(),
            latency_us: latency.millis().saturating_mul(1000),
            mtu: mtu?,
            labels,
            at: place,
        })
    }

    fn plan(reader: &mut Reader<'_>) -> Plan {
        let ipv4 = reader.parse::<Ipv4Net>("addresses.ipv4");
        let ipv6 = reader.parse::<Ipv6Net>("addresses.ipv6");
        if ipv4.is_none() && ipv6.is_none() {
            let why = "no pool is given: every slice must bring its own addresses".to_owned();
            reader.warning("addresses", why);
        }
        let lease = reader
            .parse::<Span>("addresses.lease")
            .unwrap_or(Span::from_secs(3600));
        let lease_seconds = u32::try_from(lease.seconds()).ok();
        let lease_seconds = lease_seconds.filter(|s| (30..=2_592_000).contains(s));
        if lease_seconds.is_none() {
            reader.error("addresses.lease", "must be 30s to 30d".into());
        }
        Plan {
            ipv4,
            ipv6,
            lease_seconds: lease_seconds.unwrap_or(3600),
        }
    }
}

/// An MTU in bytes, 1500 when absent. 1280 is the least that IPv6 asks of a link (RFC 8200 §5).
fn mtu(reader: &mut Reader<'_>, path: &str) -> Option<u32> {
    let mtu = reader.integer(path).unwrap_or(1500);
    let mtu = u32::try_from(mtu)
        .ok()
        .filter(|mtu| (1280..=65_535).contains(mtu));
    if mtu.is_none() {
        reader.error(path, "must be 1280 to 65535 bytes".into());
    }
    mtu
}

/// The host in `https://HOST:PORT`.
fn host_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let plain = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/");
    let host = uri.host().filter(|_| plain && uri.query().is_none())?;
    Some(
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn problems(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vdnd.toml");
        std::fs::write(&file, text).unwrap();
        check_file(&file)
            .unwrap()
            .iter()
            .map(|p| format!("{}: {}", p.path, p.why))
            .collect()
    }

    #[test]
    fn the_reference_is_taken_and_has_every_field() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/appliance.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        load(&file).unwrap();
        for table in TABLES {
            let head = format!("[{}]", table.name);
            let there = table.name.is_empty() || text.contains(&head);
            assert!(there, "{head} is not in the reference");
            for key in table.keys() {
                let field = format!("{key} =");
                let name = table.name;
                assert!(
                    text.contains(&field),
                    "{name}.{key} is not in the reference"
                );
            }
        }
    }

    #[test]
    fn all_problems_are_told_with_their_fields() {
        let told = problems(
            "version = 2\nlisten = { address = \"x\", extra = 1 }\n[domain]\nname = \"A\"\n[[border]]\nname = \"site-switch\"\ncapacity = \"10\"\nmtu = 9\n[addresses]\nlease = \"1s\"\nipv4 = \"10.0.0.0\"\n",
        );
        for field in [
            "version",
            "listen.address",
            "listen.extra",
            "domain.name",
            "border[0].name",
            "border[0].capacity",
            "border[0].mtu",
            "border[0].peer-domain",
            "addresses.lease",
            "addresses.ipv4",
        ] {
            let prefix = format!("{field}: ");
            assert!(
                told.iter().any(|line| line.starts_with(&prefix)),
                "{field} is not in {told:#?}"
            );
        }
    }

    #[test]
    fn a_secret_that_others_can_read_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("operator.token");
        std::fs::write(&token, "correct-horse-battery").unwrap();
        let text = format!(
            "version = 1\n[operator]\ntoken-file = {:?}\n",
            token.display().to_string()
        );
        for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
            let told = problems(&text);
            let told = told.iter().any(|one| one.contains("can be read by others"));
            assert_eq!(told, refused, "{mode:o}");
        }
    }

    #[test]
    fn a_url_is_an_authority_and_nothing_else() {
        assert_eq!(
            host_of("https://vdn.example.org:8443"),
            Some("vdn.example.org".into())
        );
        assert_eq!(host_of("https://[fd00::1]:8443/"), Some("fd00::1".into()));
        for bad in ["http://a", "https://a/b", "https://a?x", "a", ""] {
            assert_eq!(host_of(bad), None, "{bad}");
        }
    }
}
