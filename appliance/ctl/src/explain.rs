//! `dtnctl access explain`: what happens to a packet at a gateway and to the one that answers it, and
//! which rule decides. Nothing is sent: the controller works it out as the gateway's host does.

use crate::{
    answer::{json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{Daemon, LOOK_UP, percent},
    rules::line,
    table::pairs,
    wording::second,
};
use dtn_api::{
    Name,
    gateway::{AccessAction, Decided, Explanation, Protocol},
};
use jiff::Timestamp;
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// Options of `access explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the gateway
    gateway: Name,
    // brackets would be a link in a comment that is documentation
    #[arg(
        long,
        value_name = "IP[:PORT]",
        help = "Where the packet comes from, as 10.20.0.11:40000 or [2001:db8::7]:40000"
    )]
    from: End,
    /// Where it goes
    #[arg(long, value_name = "IP[:PORT]")]
    to: End,
    /// Its protocol: tcp, udp, sctp or icmp; another one when absent
    #[arg(long)]
    proto: Option<Protocol>,
    /// The slice; the one that has one of the addresses when absent
    #[arg(long)]
    slice: Option<Name>,
    /// When: an instant as 2027-01-10T06:00:00Z; now when absent
    #[arg(long, value_name = "TIME")]
    at: Option<Timestamp>,
}

/// An end of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    ip: IpAddr,
    port: Option<u16>,
}

impl FromStr for End {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Ok(Self {
                ip: both.ip(),
                port: Some(both.port()),
            });
        }
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        match bare.parse() {
            Ok(ip) => Ok(Self { ip, port: None }),
            Err(_) => Err(
                "write an address with its port, as 192.0.2.7:443 or [2001:db8::7]:443, or without"
                    .into(),
            ),
        }
    }
}

impl Args {
    fn query(&self) -> String {
        let pairs = [
            ("src", Some(self.from.ip.to_string())),
            ("dst", Some(self.to.ip.to_string())),
            ("src_port", self.from.port.map(|port| port.to_string())),
            ("dst_port", self.to.port.map(|port| port.to_string())),
            ("proto", self.proto.map(|proto| proto.to_string())),
            ("slice", self.slice.as_ref().map(ToString::to_string)),
            ("at", self.at.map(|at| at.to_string())),
        ];
        let given = pairs.iter().filter_map(|(name, value)| {
            let value = percent(value.as_ref()?);
            Some(format!("{name}={value}"))
        });
        given.collect::<Vec<_>>().join("&")
    }
}

/// Asks the controller on this host.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let gateway = &args.gateway;
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .get(&format!("/gateways/{gateway}/explain?{}", args.query()))
        .await
        .map_err(|error| while_doing(format!("asking what gateway {gateway} does"), error))?;
    let explanation: Explanation = read(&answer, "the explanation")?;
    let done = match context.json {
        true => json(&answer)?,
        false => Done::text(shown(&explanation)),
    };
    match explanation.packet.action {
        AccessAction::Allow => Ok(done),
        AccessAction::Deny => Err(Failure::Dropped {
            out: done.out,
            why: format!("the packet is dropped: {}", explanation.packet.why),
            next: format!(
                "the rules, in order: {} access list {gateway}",
                context.place.command()
            ),
        }),
    }
}

fn shown(explanation: &Explanation) -> String {
    pairs(&[
        ("slice", explanation.slice.to_string()),
        ("direction", explanation.direction.to_string()),
        ("packet", decided(&explanation.packet)),
        ("answer", decided(&explanation.answer)),
        ("at", second(explanation.at)),
    ])
}

fn decided(decided: &Decided) -> String {
    let mut text = match decided.action {
        AccessAction::Allow => format!("passes: {}", decided.why),
        AccessAction::Deny => format!("DROPPED: {}", decided.why),
    };
    if let Some(rule) = &decided.rule {
        text += &format!("\nrule {}: {}", rule.priority, line(rule));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let line = |words: &str| {
            let words = std::iter::once("explain").chain(words.split(' '));
            Line::try_parse_from(words).map(|line| line.args.query())
        };
        assert_eq!(
            line("g --from 10.20.0.11:40000 --to 192.0.2.7:443 --proto tcp --slice web").unwrap(),
            "src=10.20.0.11&dst=192.0.2.7&src_port=40000&dst_port=443&proto=tcp&slice=web"
        );
        assert_eq!(
            line("g --from [fd00::1]:1 --to [2001:db8::7] --at 2027-01-10T06:00:00Z").unwrap(),
            "src=fd00%3A%3A1&dst=2001%3Adb8%3A%3A7&src_port=1&at=2027-01-10T06%3A00%3A00Z"
        );
        let error = line("g --from host --to 192.0.2.7").unwrap_err();
        assert!(error.to_string().contains("[2001:db8::7]:443"), "{error}");
    }

    #[test]
    fn the_rule_that_decides_is_told_for_both_ways() {
        let explanation: Explanation = serde_json::from_value(json!({
            "slice": "web", "direction": "outbound", "at": "2027-01-10T06:00:00Z",
            "packet": {"action": "allow", "why": "rule 100 allows it",
                "rule": {"priority": 100, "action": "allow", "direction": "outbound",
                         "match": {"dst": "192.0.2.0/24"}}},
            "answer": {"action": "deny", "why": "no rule allows it"},
        }))
        .unwrap();
        insta::assert_snapshot!("access_explained", shown(&explanation));
    }
}
