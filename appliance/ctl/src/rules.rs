//! Access rules in words, and `dtnctl access list`: who may pass a gateway, and what each rule has
//! decided about.

use crate::{
    answer::{json, read},
    cli::Context,
    failure::{Done, Outcome, while_doing},
    place::{Daemon, LOOK_UP},
    table::Table,
    wording::{distance, packets, second},
};
use dtn_api::{
    Name,
    gateway::{AccessMatch, AccessRule, PortRange, StandingRule, StandingRules},
    slice::{Schedule, default_tenant},
};
use jiff::Timestamp;

/// A rule that has no beginning is in force since then.
pub(crate) const ALWAYS_WAS: Timestamp = Timestamp::UNIX_EPOCH;

/// A rule that has no end is in force until then: the last whole second that RFC 3339 can write, in
/// every time zone.
pub(crate) fn never_ends() -> Timestamp {
    Timestamp::from_second(Timestamp::MAX.as_second()).unwrap_or(Timestamp::MAX)
}

/// When a rule is in force, of what somebody wrote.
pub(crate) fn schedule(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<Schedule> {
    (start.is_some() || end.is_some()).then(|| Schedule {
        start: start.unwrap_or(ALWAYS_WAS),
        end: end.unwrap_or_else(never_ends),
    })
}

/// Asks the controller on this host.
pub(crate) async fn list(gateway: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, LOOK_UP)?;
    let answer = link
        .get(&format!("/gateways/{gateway}/access_rules"))
        .await
        .map_err(|error| {
            let command = context.place.command();
            while_doing(
                format!("asking for the access rules of gateway {gateway}"),
                error,
            )
            .or_next(format!("see which there are: {command} gateway list"))
        })?;
    if context.json {
        return json(&answer);
    }
    let rules: StandingRules = read(&answer, "the access rules")?;
    let done = Done::text(shown(&rules, context.now));
    Ok(match rules.items.is_empty() {
        true => done.next(format!(
            "let something pass: {} access set {gateway} 100 allow outbound --to NETWORK",
            context.place.command()
        )),
        false => done,
    })
}

/// The table, with what no rule allowed in the last line.
fn shown(rules: &StandingRules, now: Timestamp) -> String {
    let mut table = Table::new(&[
        "NUMBER",
        "ACTION",
        "DIRECTION",
        "WHAT",
        "SLICE",
        "IN FORCE",
        "HOST",
        "SWITCHES",
        "NOTE",
    ]);
    for StandingRule {
        rule,
        in_force,
        host,
        switches,
    } in &rules.items
    {
        table.row([
            rule.priority.to_string(),
            rule.action.to_string(),
            rule.direction.to_string(),
            described(rule),
            whose(rule),
            window(rule.schedule, *in_force, now),
            host.packets.to_string(),
            switches.map_or_else(String::new, |count| count.packets.to_string()),
            rule.note.clone(),
        ]);
    }
    let mut text = table.print("no access rules: nothing passes");
    text += &format!(
        "no rule allowed: {} at the host",
        packets(rules.denied_host)
    );
    if let Some(count) = rules.denied_switches {
        text += &format!(", {} in the switches", packets(count));
    }
    text += &format!("\nversion {}\n", rules.version);
    text
}

/// A rule in a line, without its number.
pub(crate) fn line(rule: &AccessRule) -> String {
    let mut text = format!("{} {} {}", rule.action, rule.direction, described(rule));
    if rule.slice.is_some() {
        text += &format!(", slice {}", whose(rule));
    }
    if let Some(window) = rule.schedule {
        text += &format!(", {}", span(window));
    }
    if !rule.note.is_empty() {
        text += &format!(" ({})", rule.note);
    }
    text
}

/// Which packets it is about, and how.
fn described(rule: &AccessRule) -> String {
    let mut text = what(&rule.packets);
    if rule.stateful {
        text += ", stateful";
    }
    if rule.log {
        text += ", logged";
    }
    text
}

/// Which packets, in words.
fn what(packets: &AccessMatch) -> String {
    let mut words = vec![
        packets
            .proto
            .map_or_else(|| "anything".into(), |proto| proto.to_string()),
    ];
    let ends = [
        ("from", packets.src, &packets.src_ports),
        ("to", packets.dst, &packets.dst_ports),
    ];
    for (word, net, ports) in ends {
        if net.is_none() && ports.is_empty() {
            continue;
        }
        words.push(word.into());
        words.extend(net.map(|net| net.to_string()));
        if !ports.is_empty() {
            words.push(format!("port {}", ranges(ports)));
        }
    }
    words.join(" ")
}

fn ranges(ports: &[PortRange]) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(",")
}

/// The slice that it is for, with its tenant where that is not the usual one.
fn whose(rule: &AccessRule) -> String {
    match &rule.slice {
        None => "every".into(),
        Some(slice) if rule.tenant == default_tenant() => slice.to_string(),
        Some(slice) => format!("{slice} of {}", rule.tenant),
    }
}

fn window(schedule: Option<Schedule>, in_force: bool, now: Timestamp) -> String {
    match (schedule, in_force) {
        (Some(window), true) if window.end < never_ends() => {
            format!("yes, ends {}", distance(window.end, now))
        }
        (_, true) => "yes".into(),
        (Some(window), false) if now < window.start => {
            format!("NO, begins {}", distance(window.start, now))
        }
        (Some(window), false) => format!("NO, ended {}", distance(window.end, now)),
        (None, false) => "NO".into(),
    }
}

fn span(window: Schedule) -> String {
    let from = (window.start > ALWAYS_WAS).then(|| format!("from {}", second(window.start)));
    let until = (window.end < never_ends()).then(|| format!("until {}", second(window.end)));
    match (from, until) {
        (Some(from), Some(until)) => format!("{from} {until}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "always".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(switches: bool) -> StandingRules {
        let count = |packets: u64| json!({"packets": packets, "bytes": packets * 100});
        let seen = |packets: u64| match switches {
            true => count(packets),
            false => json!(null),
        };
        serde_json::from_value(json!({
            "version": 4, "denied_host": count(1), "denied_switches": seen(9),
            "items": [
                {"priority": 100, "action": "allow", "direction": "outbound", "slice": "web",
                 "match": {"dst": "192.0.2.0/24", "proto": "tcp", "dst_ports": ["443", "50000-51000"]},
                 "in_force": true, "host": count(7), "switches": seen(8), "note": "mirrors"},
                {"priority": 200, "action": "allow", "direction": "inbound", "slice": "web",
                 "tenant": "hep", "stateful": true, "log": true,
                 "match": {"src": "198.51.100.7/32", "src_ports": ["1024-65535"], "proto": "udp"},
                 "schedule": {"start": "2027-01-10T07:00:00Z", "end": "2027-01-10T08:00:00Z"},
                 "in_force": false, "host": count(0), "switches": seen(0)},
                {"priority": 300, "action": "deny", "direction": "outbound",
                 "schedule": {"start": "1970-01-01T00:00:00Z", "end": "2027-01-10T08:00:00Z"},
                 "in_force": true, "host": count(0), "switches": seen(0)},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn rules_are_told_in_words_with_what_they_decided_about() {
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        let (mut text, edge) = (shown(&rules(true), now), shown(&rules(false), now));
        text += &format!("\n{edge}\n");
        for standing in rules(false).items {
            text += &format!("{}\n", line(&standing.rule));
        }
        insta::assert_snapshot!("access_rules", text);
    }

    #[test]
    fn what_has_no_end_is_written_and_read_back() {
        let window = schedule(Some(ALWAYS_WAS), None).unwrap();
        let text = serde_json::to_string(&window).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), window);
        assert_eq!(schedule(None, None), None);
    }
}
