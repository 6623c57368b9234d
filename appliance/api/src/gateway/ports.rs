//! Ports of transport protocols, as access rules name them: one, or from one to another.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Ports from one to another, both of them included; written `443` or `50000-51000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}
impl PortRange {
    /// The first one.
    pub const fn first(self) -> u16 {
        self.first
    }
    /// The last one.
    pub const fn last(self) -> u16 {
        self.last
    }
    /// Whether a port is one of them.
    pub const fn has(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}
impl FromStr for PortRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last))
                if first <= last && digits(text.replacen('-', "", 1).as_str()) =>
            {
                Ok(Self { first, last })
            }
            _ => Err(format!(
                "ports {text:?} are not valid: write one from 0 to 65535, as \"443\", or from one to another, as \"50000-51000\""
            )),
        }
    }
}
impl TryFrom<String> for PortRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
impl From<PortRange> for String {
    fn from(range: PortRange) -> Self {
        range.to_string()
    }
}
#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for PortRange {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .examples([serde_json::json!("50000-51000")])
            .into()
    }
}
#[cfg(feature = "openapi")]
impl utoipa::ToSchema for PortRange {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_from_one_to_another() {
        for good in ["0", "443", "50000-51000", "0-65535"] {
            assert_eq!(good.parse::<PortRange>().unwrap().to_string(), good);
        }
        for bad in ["", "-", "443-", "-443", "2-1", "65536", "+1", "1-2-3", " 1"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }
}
