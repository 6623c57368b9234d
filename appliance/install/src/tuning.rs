//! The host's own settings, for traffic that is not in a sandbox (gateways, shared NICs, the host's own
//! tools) and as what new sandboxes start with. Pure: which settings there are is known by dtn-tuning.

use crate::{
    facts::Facts,
    step::{Content, Step},
};
use dtn_api::{Rate, Size, Span};
use dtn_tuning::{CongestionControl, Path, dtn};
use std::fmt::Write as _;

/// Where they are kept for the next boot.
pub(crate) const FILE: &str = "/etc/sysctl.d/60-dtn.conf";
/// What the appliance assumes where the configuration says nothing else (`[tuning] rtt`).
const RTT: Span = Span::from_millis(100);
/// Of a host without a NIC that tells its speed.
const RATE: Rate = Rate::from_bps(10_000_000_000);
/// As many as the transfer templates start.
const STREAMS: u32 = 4;

/// The steps, and what an operator should know of them.
pub(crate) fn steps(facts: &Facts) -> (Vec<Step>, Vec<String>) {
    let fastest = facts.nics.iter().filter_map(|nic| nic.speed).max();
    let path = Path {
        rate: fastest.unwrap_or(RATE),
        rtt: RTT,
        mtu: 9000,
        streams: STREAMS,
        memory_limit: (facts.memory_bytes > 0).then(|| Size::from_bytes(facts.memory_bytes)),
    };
    let profile = dtn(&path, CongestionControl::Cubic, &facts.controls);
    let mut text = format!(
        "# Of the DTN appliance (install.sh --tune), for {} over {}. Gone with it.\n",
        path.rate, path.rtt
    );
    let mut settings = Vec::new();
    for setting in &profile.settings {
        let _ = write!(
            text,
            "\n# {} ({})\n{} = {}\n",
            setting.why, setting.source, setting.key, setting.value
        );
        settings.push((setting.key.clone(), setting.value.clone()));
    }
    let bbr = CongestionControl::Bbr.as_str();
    if facts
        .controls
        .available
        .iter()
        .any(|control| control == bbr)
        && !facts.controls.allowed.iter().any(|control| control == bbr)
    {
        let key = "net.ipv4.tcp_allowed_congestion_control";
        let value = format!("{} {bbr}", facts.controls.allowed.join(" "));
        let _ = write!(
            text,
            "\n# a site may choose bbr for paths that lose packets, and a sandbox only what is listed here\n{key} = {value}\n"
        );
        settings.push((key.to_owned(), value));
    }
    let mut steps = vec![Step::file(FILE, 0o644, Content::Text(text))];
    if facts.live {
        let live = settings.into_iter();
        steps.extend(live.map(|(key, value)| Step::Setting { key, value }));
    }
    (steps, profile.notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_tuning::Controls;

    #[test]
    fn what_is_in_force_now_is_what_the_next_boot_has() {
        let facts = Facts {
            live: true,
            memory_bytes: 64 << 30,
            controls: Controls {
                available: ["reno", "cubic", "bbr"].map(str::to_owned).to_vec(),
                allowed: ["reno", "cubic"].map(str::to_owned).to_vec(),
                current: "cubic".into(),
            },
            ..Facts::default()
        };
        let (steps, _) = steps(&facts);
        let Step::File {
            content: Content::Text(text),
            ..
        } = &steps[0]
        else {
            panic!("{:?}", steps[0])
        };
        let mut live = 0;
        for step in &steps[1..] {
            let Step::Setting { key, value } = step else {
                panic!("{step}")
            };
            assert!(text.contains(&format!("\n{key} = {value}\n")), "{text}");
            live += 1;
        }
        assert_eq!(
            text.lines()
                .filter(|l| l.contains(" = ") && !l.starts_with('#'))
                .count(),
            live
        );
        assert!(text.contains("tcp_allowed_congestion_control = reno cubic bbr"));
    }
}
