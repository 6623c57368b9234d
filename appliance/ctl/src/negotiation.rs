//! A negotiation in words: asked, offered, taken, which end limits, and what to type next. Pure.

use crate::{
    table::pairs,
    wording::{count, instant, quoted, rate, second},
};
use dtn_api::{
    Rate,
    local::{Ask, LocalSlice, Negotiation, NegotiationState, Offer},
    nic::NicClass,
    slice::{Class, default_tenant},
};
use jiff::Timestamp;

/// Whether nothing more will come of it by itself.
pub(crate) fn ended(state: NegotiationState) -> bool {
    use NegotiationState as S;
    matches!(state, S::Agreed | S::Refused | S::Failed | S::Ended)
}

/// Whether the wish was not met.
pub(crate) fn failed(negotiation: &Negotiation) -> bool {
    use NegotiationState as S;
    matches!(negotiation.state, S::Refused | S::Failed)
}

/// The state in a word.
pub(crate) fn word(state: NegotiationState) -> &'static str {
    use NegotiationState as S;
    match state {
        S::Asking => "asking",
        S::Holding => "holding",
        S::Committing => "committing",
        S::Agreed => "agreed",
        S::Waiting => "waiting",
        S::Refused => "refused",
        S::Failed => "failed",
        S::Ended => "ended",
    }
}

/// Asked, offered, taken.
pub(crate) fn shown(
    negotiation: &Negotiation,
    slice: Option<&LocalSlice>,
    now: Timestamp,
) -> String {
    let mut rows = vec![
        ("slice", negotiation.ask.name.to_string()),
        ("asked", asked(&negotiation.ask)),
    ];
    let offered = |offer: &Offer| {
        format!(
            "{}, limited by {}\n{} to {}",
            offer.rate,
            limit(offer),
            instant(offer.start, now),
            instant(offer.end, now)
        )
    };
    rows.push((
        "offered",
        negotiation
            .offer
            .as_ref()
            .map_or_else(|| "nothing yet".into(), offered),
    ));
    if let Some(later) = &negotiation.later {
        rows.push(("later", offered(later)));
    }
    if let Some(local) = slice {
        let taken = Rate::from_bps(local.slice.spec.qos.rate_bps);
        let mtu = local.slice.spec.addressing.as_ref().map(|all| all.mtu);
        let mtu = mtu.map(|mtu| format!(" at MTU {mtu}")).unwrap_or_default();
        rows.push(("taken", taken.to_string()));
        rows.push((
            "carries",
            format!("{} of TCP payload{mtu}", rate(local.ceiling)),
        ));
        rows.push(("stands", crate::slice::standing(&local.slice)));
    }
    let mut state = word(negotiation.state).to_owned();
    if !negotiation.reason.is_empty() {
        state.push_str(": ");
        state.push_str(&negotiation.reason);
    }
    rows.push(("state", state));
    rows.push(("negotiation", negotiation.id.to_string()));
    pairs(&rows)
}

fn limit(offer: &Offer) -> &str {
    match offer.limited_by.as_str() {
        "" => "what was asked",
        link => link,
    }
}

fn asked(ask: &Ask) -> String {
    let rate = match (ask.rate, ask.min_rate) {
        (Some(rate), Some(least)) => format!("{rate}, at least {least}"),
        (Some(rate), None) => rate.to_string(),
        (None, _) => "the most that can be had".into(),
    };
    let start = ask.start.map(|start| format!(" from {}", second(start)));
    let remote = ask.remote.as_ref().map(|end| format!(" to {}", end.domain));
    let gateway = ask.gateway.as_ref().map(|name| format!(" by {name}"));
    format!(
        "{rate}, {}{}, for {}{}",
        ask.class,
        remote.or(gateway).unwrap_or_default(),
        ask.duration,
        start.unwrap_or_default()
    )
}

/// The next step after one that did not fail.
pub(crate) fn next(negotiation: &Negotiation, command: &str) -> String {
    use NegotiationState as S;
    let ask = &negotiation.ask;
    if ask.dry_run {
        let mut real = ask.clone();
        real.dry_run = false;
        return format!("reserve it: {}", ask_again(&real, command));
    }
    match negotiation.state {
        S::Agreed => format!(
            "start a pod in it: {command} deploy TEMPLATE --name NAME --slice {} --nic {}",
            ask.name, ask.nic_class
        ),
        S::Waiting => format!(
            "it is taken when it fits, within {}; see where it stands: {command} slice negotiation {}",
            ask.wait, negotiation.id
        ),
        S::Ended => format!("reserve it again: {}", ask_again(ask, command)),
        _ => format!(
            "see where it stands: {command} slice negotiation {}",
            negotiation.id
        ),
    }
}

/// What a refusal says.
pub(crate) fn refusal(negotiation: &Negotiation) -> String {
    let ask = &negotiation.ask;
    let mut text = format!(
        "slice {} was {}",
        ask.name,
        match negotiation.state {
            NegotiationState::Refused => "refused",
            _ => "not reserved",
        }
    );
    if !negotiation.reason.is_empty() {
        text.push_str(": ");
        text.push_str(&negotiation.reason);
    }
    if let (Some(offer), Some(rate)) = (&negotiation.offer, ask.rate)
        && offer.rate < rate
    {
        text.push_str(&format!(
            "\n  asked: {rate}, would fit: {}, limited by: {}",
            offer.rate,
            limit(offer)
        ));
    }
    text
}

/// The commands that would be granted instead.
pub(crate) fn what_would_do(negotiation: &Negotiation, command: &str) -> Option<String> {
    let ask = &negotiation.ask;
    let now = negotiation
        .offer
        .as_ref()
        .filter(|offer| offer.rate > Rate::default())
        .map(|offer| take_instead(ask, offer.rate, command));
    let later = negotiation.later.as_ref().map(|later| {
        let mut ask = ask.clone();
        ask.start = Some(later.start);
        format!("all of it, later: {}", ask_again(&ask, command))
    });
    let all: Vec<String> = now.into_iter().chain(later).collect();
    let intro = match all.len() {
        0 => return None,
        1 => String::new(),
        number => format!("{}:\n  ", count(number, "way")),
    };
    Some(format!("{intro}{}", all.join("\n  ")))
}

/// The command that takes what fits.
pub(crate) fn take_instead(ask: &Ask, fits: Rate, command: &str) -> String {
    if fits == Rate::default() {
        return "nothing is left in this window: choose another with --start, or --wait for one"
            .into();
    }
    let mut less = ask.clone();
    (less.rate, less.min_rate) = (Some(fits), None);
    format!("take the {fits} that fit: {}", ask_again(&less, command))
}

/// The command line that asks this.
pub(crate) fn ask_again(ask: &Ask, command: &str) -> String {
    let mut line = format!("{command} slice reserve {}", ask.name);
    let mut option = |name: &str, value: String| {
        line.push_str(&format!(" --{name} {}", quoted(&value)));
    };
    if let Some(rate) = ask.rate {
        option("rate", rate.to_string());
    }
    if let Some(least) = ask.min_rate {
        option("min-rate", least.to_string());
    }
    if ask.class != Class::Guaranteed {
        option("class", ask.class.to_string());
    }
    option("for", ask.duration.to_string());
    if let Some(start) = ask.start {
        option("start", start.to_string());
    }
    if let Some(end) = &ask.remote {
        let endpoint = end.endpoint.as_ref().map(|end| format!("/{end}"));
        option(
            "to",
            format!("{}{}", end.domain, endpoint.unwrap_or_default()),
        );
        if let Some(link) = &end.border_link {
            option("via", link.to_string());
        }
    }
    if let Some(gateway) = &ask.gateway {
        option("gateway", gateway.to_string());
    }
    if ask.nic_class != NicClass::Dedicated {
        option("nic", ask.nic_class.to_string());
    }
    if let Some(nic) = &ask.nic {
        option("device", nic.to_string());
    }
    if ask.wait.millis() > 0 {
        option("wait", ask.wait.to_string());
    }
    if ask.tenant != default_tenant() {
        option("tenant", ask.tenant.to_string());
    }
    if ask.dry_run {
        line.push_str(" --dry-run");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2027-01-10T06:00:00Z".parse().unwrap()
    }
    fn negotiation(state: &str, extra: serde_json::Value) -> Negotiation {
        let mut value = json!({
            "id": "01930000-0000-7000-8000-000000000001",
            "ask": {
                "name": "lhc", "class": "guaranteed", "rate": "2Gbit", "duration": "2h",
                "nic_class": "dedicated", "remote": {"domain": "busan"},
            },
            "state": state,
            "offer": {
                "rate": "950Mbit", "start": "2027-01-10T06:00:00Z",
                "end": "2027-01-10T08:00:00Z", "limited_by": "busan:wan",
            },
        });
        if let (Some(value), Some(extra)) = (value.as_object_mut(), extra.as_object()) {
            value.extend(extra.clone());
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_refusal_names_the_number_and_the_command() {
        let refused = negotiation("refused", json!({"reason": "2Gbit do not fit"}));
        assert_eq!(
            refusal(&refused),
            "slice lhc was refused: 2Gbit do not fit\n  \
             asked: 2Gbit, would fit: 950Mbit, limited by: busan:wan"
        );
        assert_eq!(
            what_would_do(&refused, "dtnctl --site daejeon").unwrap(),
            "take the 950Mbit that fit: dtnctl --site daejeon slice reserve lhc --rate 950Mbit \
             --for 2h --to busan"
        );
        insta::assert_snapshot!("negotiation_refused", shown(&refused, None, now()));
    }

    #[test]
    fn a_later_window_is_a_second_way() {
        let refused = negotiation(
            "refused",
            json!({"later": {
                "rate": "2Gbit", "start": "2027-01-10T09:00:00Z",
                "end": "2027-01-10T11:00:00Z", "limited_by": "",
            }}),
        );
        insta::assert_snapshot!("ways", what_would_do(&refused, "dtnctl").unwrap());
    }

    #[test]
    fn nothing_left_is_not_a_command_for_nothing() {
        let offer = json!({
            "rate": "0bit", "start": "2027-01-10T06:00:00Z", "end": "2027-01-10T08:00:00Z",
            "limited_by": "daejeon:wan",
        });
        let refused = negotiation("refused", json!({"offer": offer}));
        assert_eq!(what_would_do(&refused, "dtnctl"), None);
        let none = take_instead(&refused.ask, Rate::default(), "dtnctl");
        assert!(!none.contains("dtnctl"), "{none}");
    }

    #[test]
    fn each_state_has_a_next_step() {
        for state in [
            "asking",
            "holding",
            "committing",
            "agreed",
            "waiting",
            "ended",
        ] {
            let negotiation = negotiation(state, json!({}));
            assert!(next(&negotiation, "dtnctl").contains("dtnctl "), "{state}");
        }
    }
}
