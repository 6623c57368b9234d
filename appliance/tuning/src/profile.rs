//! The profile `dtn`: which settings a sandbox gets for its path, each with its reason and source.

use crate::{
    controls::Controls,
    sizing::{LEAST_BUFFER, Path},
};
use dtn_api::attachment::SandboxSetting;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Name of the profile.
pub const DTN: &str = "dtn";

/// A setting with its ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As in `/proc/sys`, with dots: `net.ipv4.tcp_rmem`.
    pub key: String,
    /// As it is written.
    pub value: String,
    /// Why it is so.
    pub why: String,
    /// Where that is from.
    pub source: String,
}

impl From<Setting> for SandboxSetting {
    fn from(setting: Setting) -> Self {
        Self {
            key: setting.key,
            value: setting.value,
            why: format!("{} ({})", setting.why, setting.source),
        }
    }
}
impl From<SandboxSetting> for Setting {
    /// The reason of a prepared file holds its source already.
    fn from(setting: SandboxSetting) -> Self {
        Self {
            key: setting.key,
            value: setting.value,
            why: setting.why,
            source: String::new(),
        }
    }
}

/// How TCP answers loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CongestionControl {
    /// The kernel's default, and ours behind a shaper.
    #[default]
    Cubic,
    /// A site's choice on long paths that lose packets.
    Bbr,
    /// The plain one, for comparison.
    Reno,
}

impl CongestionControl {
    /// As the kernel names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
            Self::Reno => "reno",
        }
    }
}
impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
impl FromStr for CongestionControl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Cubic, Self::Bbr, Self::Reno]
            .into_iter()
            .find(|control| control.as_str() == text)
            .ok_or_else(|| {
                format!("congestion control {text:?} is not known: write cubic, bbr or reno")
            })
    }
}

/// A profile worked out for a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// The settings, in the order in which they are applied.
    pub settings: Vec<Setting>,
    /// What an operator should know: what was cut, and what it costs.
    pub notes: Vec<String>,
}

/// Works out the profile `dtn` for a path, with the congestion control that the site chose, as far as
/// the host lets a sandbox have it.
pub fn dtn(path: &Path, control: CongestionControl, offered: &Controls) -> Profile {
    const FASTERDATA: &str = "fasterdata.es.net host tuning";
    const KERNEL: &str = "kernel Documentation/networking/ip-sysctl";
    let buffer = path.buffer();
    let bytes = buffer.bytes();
    let sized = format!(
        "2 x {} x {} = {} under way at most{}",
        path.rate,
        path.rtt,
        dtn_api::Size::from_bytes(path.bandwidth_delay_product().bytes().saturating_mul(2))
            .rounded(),
        if cut(path) {
            format!(
                ", cut to the share of each of {} streams of the pod's memory",
                path.streams
            )
        } else if bytes == LEAST_BUFFER {
            ", raised to the least of 4 MiB".to_owned()
        } else {
            String::new()
        }
    );
    // least, start and ceiling must not fall
    let triple = |start: u64| format!("{} {} {bytes}", 4096.min(bytes), start.min(bytes));
    let setting = |key: &str, value: String, why: String, source: &str| Setting {
        key: key.to_owned(),
        value,
        why,
        source: source.to_owned(),
    };
    let mut settings = vec![
        setting(
            "net.ipv4.tcp_rmem",
            triple(131_072),
            format!("receive buffer: {sized}"),
            FASTERDATA,
        ),
        setting(
            "net.ipv4.tcp_wmem",
            triple(65_536),
            format!("send buffer: {sized}"),
            FASTERDATA,
        ),
        setting(
            "net.ipv4.tcp_mtu_probing",
            "1".to_owned(),
            format!(
                "a router that drops {} byte packets in silence must not stop a stream",
                path.mtu
            ),
            "RFC 4821; fasterdata.es.net host tuning",
        ),
        setting(
            "net.ipv4.tcp_slow_start_after_idle",
            "0".to_owned(),
            "a pause between two files must not cost the window that was won".to_owned(),
            KERNEL,
        ),
        setting(
            "net.ipv4.tcp_no_metrics_save",
            "1".to_owned(),
            "one bad transfer must not slow the next to the same host".to_owned(),
            FASTERDATA,
        ),
    ];
    let mut notes = notes(path);
    if offered.admit(control) {
        settings.push(setting(
            "net.ipv4.tcp_congestion_control",
            control.to_string(),
            match control {
                CongestionControl::Cubic => {
                    "behind a shaper at the slice's rate cubic reaches the ceiling without loss"
                }
                CongestionControl::Bbr => "chosen by the site for paths that lose packets",
                CongestionControl::Reno => "chosen by the site for comparison",
            }
            .to_owned(),
            "RFC 9438; fasterdata.es.net packet pacing",
        ));
    } else {
        notes.push(not_offered(control, offered));
    }
    Profile {
        name: DTN.to_owned(),
        settings,
        notes,
    }
}

fn not_offered(control: CongestionControl, offered: &Controls) -> String {
    let remedy = if offered.available.iter().any(|c| c == control.as_str()) {
        format!(
            "add it to net.ipv4.tcp_allowed_congestion_control of the host (now {:?})",
            offered.allowed.join(" ")
        )
    } else {
        format!("load the module tcp_{control} on the host")
    };
    format!(
        "a sandbox of this host cannot have {control} and keeps {}: {remedy}",
        offered.current
    )
}

fn cut(path: &Path) -> bool {
    let uncut = Path {
        memory_limit: None,
        ..*path
    };
    path.buffer() < uncut.buffer()
}

fn notes(path: &Path) -> Vec<String> {
    let mut notes = Vec::new();
    if cut(path) {
        notes.push(format!(
            "socket buffers are cut to {} a stream by the pod's memory limit of {}; {} streams at {} \
             over {} want a limit of {}",
            path.buffer().rounded(),
            path.memory_limit.unwrap_or_default(),
            path.streams.max(1),
            path.rate,
            path.rtt,
            path.memory_needed().rounded(),
        ));
    }
    let needed = path.streams_needed();
    if needed > path.streams.max(1)
        && let Some(ceiling) = path.stream_ceiling()
    {
        notes.push(format!(
            "one stream carries at most {ceiling} over {}; {} takes {needed} streams",
            path.rtt, path.rate,
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_api::{Rate, Size, Span};

    fn path() -> Path {
        Path {
            rate: Rate::from_bps(10_000_000_000),
            rtt: Span::from_millis(100),
            mtu: 9000,
            streams: 1,
            memory_limit: None,
        }
    }

    fn offered() -> Controls {
        Controls {
            available: ["reno", "cubic", "bbr"].map(str::to_owned).to_vec(),
            allowed: ["reno", "cubic"].map(str::to_owned).to_vec(),
            current: "cubic".to_owned(),
        }
    }

    fn value<'a>(profile: &'a Profile, key: &str) -> &'a str {
        let found = profile.settings.iter().find(|s| s.key == key);
        &found.unwrap().value
    }

    #[test]
    fn a_long_path_gets_the_published_values() {
        let profile = dtn(&path(), CongestionControl::default(), &offered());
        assert_eq!(
            value(&profile, "net.ipv4.tcp_rmem"),
            "4096 131072 250000000"
        );
        assert_eq!(value(&profile, "net.ipv4.tcp_wmem"), "4096 65536 250000000");
        assert_eq!(value(&profile, "net.ipv4.tcp_congestion_control"), "cubic");
        assert!(profile.notes.is_empty());
        assert!(
            profile
                .settings
                .iter()
                .all(|s| !s.why.is_empty() && !s.source.is_empty())
        );
    }

    #[test]
    fn a_small_pod_is_told_what_it_lacks() {
        let small = Path {
            memory_limit: Some(Size::from_bytes(64 << 20)),
            streams: 2,
            ..path()
        };
        let profile = dtn(&small, CongestionControl::Cubic, &offered());
        assert_eq!(value(&profile, "net.ipv4.tcp_rmem"), "4096 131072 16777216");
        assert_eq!(profile.notes.len(), 2, "{:?}", profile.notes);
        assert!(
            profile.notes[0].contains("16.00 MiB a stream"),
            "{}",
            profile.notes[0]
        );
    }

    #[test]
    fn the_three_numbers_never_fall() {
        let tiny = Path {
            memory_limit: Some(Size::from_bytes(5000)),
            ..path()
        };
        let profile = dtn(&tiny, CongestionControl::Cubic, &offered());
        assert_eq!(value(&profile, "net.ipv4.tcp_rmem"), "2500 2500 2500");
    }

    #[test]
    fn a_control_that_the_host_does_not_offer_is_left_out_and_told() {
        let profile = dtn(&path(), CongestionControl::Bbr, &offered());
        assert!(
            profile
                .settings
                .iter()
                .all(|s| s.key != "net.ipv4.tcp_congestion_control")
        );
        assert!(
            profile.notes[0].contains("keeps cubic: add it to"),
            "{:?}",
            profile.notes
        );
        let none = Controls {
            available: Vec::new(),
            ..offered()
        };
        let profile = dtn(&path(), CongestionControl::Bbr, &none);
        assert!(
            profile.notes[0].contains("load the module tcp_bbr"),
            "{:?}",
            profile.notes
        );
    }
}
