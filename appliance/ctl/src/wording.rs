//! How numbers and instants are worded for people: units always, rounded where the exact value
//! would not be read. What a person may have to type again is never rounded.

use dtn_api::{Rate, Span, gateway::Count};
use jiff::Timestamp;
use std::path::Path;

/// A rate for eyes: exact where that is short, else four digits.
pub(crate) fn rate(rate: Rate) -> String {
    let exact = rate.to_string();
    if exact.len() <= 9 {
        return exact;
    }
    let units = [(1e12, "Tbit"), (1e9, "Gbit"), (1e6, "Mbit"), (1e3, "kbit")];
    let bps = rate.bps() as f64;
    let (scale, unit) = units
        .iter()
        .find(|(scale, _)| bps >= *scale)
        .unwrap_or(&(1.0, "bit"));
    let value = bps / scale;
    let places = if value >= 100.0 { 1 } else { 2 };
    format!("{value:.places$}{unit}")
}

/// A rate that may be unknown.
pub(crate) fn rate_or_dash(value: Option<Rate>) -> String {
    value.map_or_else(|| "-".into(), rate)
}

/// An instant to the second, with its distance from now.
pub(crate) fn instant(at: Timestamp, now: Timestamp) -> String {
    format!("{} ({})", second(at), distance(at, now))
}

/// An instant to the second, UTC.
pub(crate) fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// `in 58m` or `2h ago`: the two largest units.
pub(crate) fn distance(at: Timestamp, now: Timestamp) -> String {
    let seconds = at.as_second() - now.as_second();
    let span = coarse(seconds.unsigned_abs());
    match seconds {
        0 => "now".into(),
        1.. => format!("in {span}"),
        _ => format!("{span} ago"),
    }
}

fn coarse(seconds: u64) -> String {
    // seconds are noise in hours, and minutes in days
    let grain = match seconds {
        0..=3_599 => 1,
        3_600..=86_399 => 60,
        _ => 3_600,
    };
    Span::from_secs(seconds / grain * grain).to_string()
}

/// A word for a command line that is shown to be copied.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A path for such a command line.
pub(crate) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// `1 NIC`, `2 NICs`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `1 packet (60 B)`.
pub(crate) fn packets(seen: Count) -> String {
    let plural = if seen.packets == 1 { "" } else { "s" };
    format!("{} packet{plural} ({} B)", seen.packets, seen.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short_for_eyes() {
        let cases = [
            (9_500_000_000, "9.5Gbit"),
            (992_678_056, "992.7Mbit"),
            (9_926_780_563, "9.93Gbit"),
            (0, "0bit"),
            (1_234, "1.234kbit"),
        ];
        for (bps, text) in cases {
            assert_eq!(rate(Rate::from_bps(bps)), text);
        }
    }

    #[test]
    fn instants_say_how_far_they_are() {
        let now: Timestamp = "2027-01-10T06:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(distance(at("2027-01-10T06:58:30.9Z"), now), "in 58m30s");
        assert_eq!(distance(at("2027-01-10T04:59:30Z"), now), "1h ago");
        assert_eq!(distance(at("2027-01-12T07:10:00Z"), now), "in 2d1h");
        assert_eq!(distance(now, now), "now");
        assert_eq!(second(at("2027-01-10T06:58:30.9Z")), "2027-01-10T06:58:30Z");
    }

    #[test]
    fn commands_that_are_shown_can_be_copied() {
        assert_eq!(quoted("daejeon"), "daejeon");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(quoted(""), "''");
    }
}
