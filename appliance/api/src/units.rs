//! Units that parse and print: rates, sizes and spans of time, never bare numbers.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

/// A value whose number or unit could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct UnitError {
    /// `rate`, `size` or `span`.
    pub what: &'static str,
    /// The text as it was given.
    pub value: String,
    /// What to write instead.
    pub rule: &'static str,
}

/// Number × 10^-digits as an exact integer: `9.5` × 1e9 without a float in between.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || number.ends_with('.') {
        return None;
    }
    let mut value = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale);
    let mut unit = u128::from(scale);
    for digit in part.bytes() {
        if unit % 10 != 0 {
            // a fraction of the smallest unit, as 0.5bit
            return None;
        }
        unit /= 10;
        value += u128::from(digit - b'0') * unit;
    }
    u64::try_from(value).ok()
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// The largest unit of which `value` is a multiple of a thousandth, printed without loss.
fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(u64, &str)]) -> fmt::Result {
    for (scale, unit) in units {
        if value < *scale || !value.is_multiple_of((scale / 1000).max(1)) {
            continue;
        }
        let (whole, rest) = (value / scale, value % scale);
        if rest == 0 {
            return f.pad(&format!("{whole}{unit}"));
        }
        let thousandths = format!("{:03}", rest / (scale / 1000));
        return f.pad(&format!(
            "{whole}.{}{unit}",
            thousandths.trim_end_matches('0')
        ));
    }
    f.pad(&format!(
        "{value}{}",
        units.last().map_or("", |(_, unit)| unit)
    ))
}

macro_rules! serde_as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = UnitError;
            fn try_from(text: String) -> Result<Self, UnitError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Bits per second of Ethernet frames (14-byte header and payload, without preamble, gap and
/// checksum): what a switch's meter and the kernel's HTB count. Text is `"9.5Gbit"`; decimal units.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);
serde_as_text!(Rate);

const RATE_UNITS: [(u64, &str); 5] = [
    (1_000_000_000_000, "Tbit"),
    (1_000_000_000, "Gbit"),
    (1_000_000, "Mbit"),
    (1_000, "kbit"),
    (1, "bit"),
];

impl Rate {
    /// From bits per second.
    pub const fn from_bps(bps: u64) -> Self {
        Self(bps)
    }
    /// In bits per second.
    pub const fn bps(self) -> u64 {
        self.0
    }
    /// What TCP with timestamps can carry in this rate of frames: R × (MTU − 52) / (MTU + 14) for
    /// IPv4 (20 IP, 20 TCP, 12 timestamps), MTU − 72 for IPv6.
    pub fn tcp_ceiling(self, mtu: u32, ipv6: bool) -> Self {
        let headers = if ipv6 { 72 } else { 52 };
        let payload = u128::from(mtu.saturating_sub(headers));
        let bps = u128::from(self.0) * payload / (u128::from(mtu) + 14);
        Self(u64::try_from(bps).unwrap_or(u64::MAX))
    }
    /// `part` of `whole` of this rate, rounded down, without a float.
    pub fn fraction(self, part: u64, whole: u64) -> Self {
        let bps = u128::from(self.0) * u128::from(part) / u128::from(whole.max(1));
        Self(u64::try_from(bps).unwrap_or(u64::MAX))
    }
}
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &RATE_UNITS)
    }
}
impl FromStr for Rate {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text.trim());
        let scale = match unit
            .strip_suffix("/s")
            .unwrap_or(unit)
            .to_ascii_lowercase()
            .as_str()
        {
            "tbit" => 1_000_000_000_000,
            "gbit" => 1_000_000_000,
            "mbit" => 1_000_000,
            "kbit" => 1_000,
            "bit" => 1,
            _ => 0,
        };
        scaled(number, scale)
            .filter(|_| scale > 0)
            .map(Self)
            .ok_or_else(|| UnitError {
                what: "rate",
                value: text.chars().take(40).collect(),
                rule: "write a number with bit, kbit, Mbit, Gbit or Tbit, as \"9.5Gbit\"",
            })
    }
}

/// A number of bytes. Text is `"2GiB"` or `"500MB"`: binary and decimal units both, as written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(u64);
serde_as_text!(Size);

const SIZE_UNITS: [(u64, &str); 5] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

impl Size {
    /// From bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
    /// For people: rounded to two places in the largest binary unit, `1.98 GiB`.
    pub fn rounded(self) -> String {
        let (scale, unit) = SIZE_UNITS
            .iter()
            .find(|(scale, _)| self.0 >= *scale)
            .unwrap_or(&SIZE_UNITS[4]);
        if *scale == 1 {
            format!("{} B", self.0)
        } else {
            format!("{:.2} {unit}", self.0 as f64 / *scale as f64)
        }
    }
}
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = SIZE_UNITS
            .iter()
            .find(|(scale, _)| self.0 >= *scale && self.0.is_multiple_of(*scale));
        let (scale, unit) = whole.unwrap_or(&SIZE_UNITS[4]);
        f.pad(&format!("{}{unit}", self.0 / scale))
    }
}
impl FromStr for Size {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split_unit(text.trim());
        let scale: u64 = match unit.to_ascii_lowercase().as_str() {
            "tib" => 1 << 40,
            "gib" => 1 << 30,
            "mib" => 1 << 20,
            "kib" => 1 << 10,
            "tb" => 1_000_000_000_000,
            "gb" => 1_000_000_000,
            "mb" => 1_000_000,
            "kb" => 1_000,
            "b" => 1,
            _ => 0,
        };
        let bytes = match number.split_once('.') {
            // 1.5GiB: binary units do not divide by ten, so a fraction is rounded down
            Some(_) if scale > 1 && scale.is_power_of_two() => {
                scaled(number, 1_000_000_000).map(|nano| {
                    u64::try_from(u128::from(nano) * u128::from(scale) / 1_000_000_000)
                        .unwrap_or(u64::MAX)
                })
            }
            _ => scaled(number, scale),
        };
        bytes
            .filter(|_| scale > 0)
            .map(Self)
            .ok_or_else(|| UnitError {
                what: "size",
                value: text.chars().take(40).collect(),
                rule: "write a number with B, KiB, MiB, GiB, TiB, kB, MB, GB or TB, as \"2GiB\"",
            })
    }
}

/// A length of time in whole milliseconds. Text is `"30s"`, `"1h30m"`, `"20ms"`, `"2d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);
serde_as_text!(Span);

const SPAN_UNITS: [(u64, &str); 5] = [
    (86_400_000, "d"),
    (3_600_000, "h"),
    (60_000, "m"),
    (1_000, "s"),
    (1, "ms"),
];

impl Span {
    /// From milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }
    /// From seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
    /// In milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }
    /// In whole seconds, rounded down.
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
    /// As the standard library's duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0s");
        }
        let (mut rest, mut text) = (self.0, String::new());
        for (scale, unit) in SPAN_UNITS {
            if rest >= scale {
                text.push_str(&format!("{}{unit}", rest / scale));
                rest %= scale;
            }
        }
        f.pad(&text)
    }
}
impl FromStr for Span {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError {
            what: "span",
            value: text.chars().take(40).collect(),
            rule: "write numbers with d, h, m, s or ms, as \"30s\" or \"1h30m\"",
        };
        let (mut rest, mut millis) = (text.trim(), 0_u64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, tail) = split_unit(rest);
            let end = tail
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(tail.len());
            let scale = SPAN_UNITS.iter().find(|(_, unit)| *unit == &tail[..end]);
            let (scale, _) = scale.ok_or_else(wrong)?;
            // fractions are in the unit's milliseconds: 1.5s is 1500
            let (whole, part) = number.split_once('.').unwrap_or((number, ""));
            let value = if part.is_empty() && !number.ends_with('.') {
                whole
                    .parse::<u64>()
                    .ok()
                    .and_then(|n| n.checked_mul(*scale))
            } else {
                scaled(number, 1_000_000)
                    .and_then(|n| n.checked_mul(*scale))
                    .map(|n| n / 1_000_000)
            };
            millis = value
                .and_then(|v| millis.checked_add(v))
                .ok_or_else(wrong)?;
            rest = tail[end..].trim_start();
        }
        Ok(Self(millis))
    }
}

#[cfg(feature = "openapi")]
mod schemas {
    use utoipa::openapi::{
        ObjectBuilder, RefOr,
        schema::{Schema, Type},
    };
    macro_rules! text {
        ($name:ident, $example:literal) => {
            impl utoipa::PartialSchema for super::$name {
                fn schema() -> RefOr<Schema> {
                    let example = [serde_json::json!($example)];
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .examples(example)
                        .into()
                }
            }
            impl utoipa::ToSchema for super::$name {}
        };
    }
    text!(Rate, "9.5Gbit");
    text!(Size, "2GiB");
    text!(Span, "30s");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_exact() {
        assert_eq!("9.5Gbit".parse::<Rate>().unwrap().bps(), 9_500_000_000);
        assert_eq!("100 Mbit/s".parse::<Rate>().unwrap().bps(), 100_000_000);
        assert_eq!("0.1kbit".parse::<Rate>().unwrap().bps(), 100);
        for bad in [
            "",
            "10",
            "10G",
            "10GB",
            "-1Gbit",
            "1.Gbit",
            ".5Gbit",
            "0.5bit",
            "1e9bit",
            "99999999999Tbit",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
        assert_eq!(Rate::from_bps(9_500_000_000).to_string(), "9.5Gbit");
        assert_eq!(Rate::from_bps(1_234_567_890).to_string(), "1234567.89kbit");
        assert_eq!(Rate::from_bps(0).to_string(), "0bit");
    }

    #[test]
    fn tcp_ceilings_are_those_of_the_wire() {
        let gigabit = Rate::from_bps(1_000_000_000);
        assert_eq!(gigabit.tcp_ceiling(1500, false).bps(), 956_406_869);
        assert_eq!(gigabit.tcp_ceiling(9000, false).bps(), 992_678_056);
        assert_eq!(gigabit.tcp_ceiling(9000, true).bps(), 990_459_285);
        assert_eq!(gigabit.tcp_ceiling(40, false).bps(), 0);
    }

    #[test]
    fn sizes_and_spans_read_as_people_write_them() {
        assert_eq!("2GiB".parse::<Size>().unwrap().bytes(), 2 << 30);
        assert_eq!("1.5GiB".parse::<Size>().unwrap().bytes(), 3 << 29);
        assert_eq!("500 MB".parse::<Size>().unwrap().bytes(), 500_000_000);
        assert!("5".parse::<Size>().is_err());
        assert_eq!(Size::from_bytes(2 << 30).to_string(), "2GiB");
        assert_eq!("1h30m".parse::<Span>().unwrap().seconds(), 5400);
        assert_eq!("1.5s".parse::<Span>().unwrap().millis(), 1500);
        assert_eq!(Span::from_secs(5400).to_string(), "1h30m");
        for bad in ["", "5", "5x", "s", "1h-3m", "99999999999999999999s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(value: u64) {
            let rate = Rate::from_bps(value);
            prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
            let size = Size::from_bytes(value);
            prop_assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
            let span = Span::from_millis(value);
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        #[test]
        fn no_parser_panics(text in ".{0,30}") {
            let _ = (text.parse::<Rate>(), text.parse::<Size>(), text.parse::<Span>());
        }
        #[test]
        fn a_ceiling_is_below_its_rate(bps: u64, mtu in 68_u32..65_536) {
            let rate = Rate::from_bps(bps);
            prop_assert!(rate.tcp_ceiling(mtu, false) <= rate);
            prop_assert!(rate.tcp_ceiling(mtu, true) <= rate.tcp_ceiling(mtu, false));
        }
    }
}
