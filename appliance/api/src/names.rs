//! Names that are checked once, when they are made: an invalid one cannot exist.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What is wrong with a name, and what a right one looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct NameError {
    /// What kind of name was asked for.
    pub what: &'static str,
    /// The text as it was given.
    pub value: String,
    /// The rule it breaks, as a remedy.
    pub rule: &'static str,
}

fn refuse<T>(what: &'static str, value: &str, rule: &'static str) -> Result<T, NameError> {
    Err(NameError {
        what,
        value: value.chars().take(80).collect(),
        rule,
    })
}

macro_rules! text_newtype {
    ($name:ident, $example:literal) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .examples([serde_json::json!($example)])
                    .into()
            }
        }
        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

/// A DNS label (RFC 1123): the name of a slice, tenant, domain, host, pod or border link.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);
text_newtype!(Name, "lhc-tier2");

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let (first, last) = (text.chars().next(), text.chars().next_back());
        if text.len() <= 63 && edge(first) && edge(last) && text.chars().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        refuse(
            "name",
            text,
            "1 to 63 of a-z, 0-9 and -, not at either end (RFC 1123 label)",
        )
    }
}

/// The name of a network interface as the kernel takes it (`dev_valid_name`, IFNAMSIZ 16).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);
text_newtype!(IfName, "ens1f0");

impl FromStr for IfName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
            return refuse(
                "interface name",
                text,
                "1 to 15 bytes, no slash, colon or white space, not . or ..",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// A PCI address with its domain, as sysfs writes it: `0000:3b:00.0`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress(String);
text_newtype!(PciAddress, "0000:3b:00.0");

impl FromStr for PciAddress {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let fits = |part: &str, len: std::ops::RangeInclusive<usize>| {
            len.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let whole = lower.split_once(':').and_then(|(domain, rest)| {
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            // a domain has four digits, more on machines with VMD (32 bits)
            (fits(domain, 4..=8)
                && fits(bus, 2..=2)
                && fits(device, 2..=2)
                && function.len() == 1
                && matches!(function.as_bytes()[0], b'0'..=b'7'))
            .then_some(())
        });
        match whole {
            Some(()) => Ok(Self(lower)),
            None => refuse(
                "PCI address",
                text,
                "write domain:bus:device.function, as 0000:3b:00.0",
            ),
        }
    }
}

/// A 48-bit hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// From the six bytes as they are on the wire.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
    /// The six bytes as they are on the wire.
    pub const fn bytes(&self) -> [u8; 6] {
        self.0
    }
    /// Whether a host may have it: not all zero and not a group address.
    pub const fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
    /// A locally administered unicast address that is always the same for the same seed, so that
    /// a pod that is made again does not cost the switches a new entry (FNV-1a, 64 bits).
    pub fn local_from(seed: &str) -> Self {
        let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let b = hash.to_be_bytes();
        Self([
            (b[0] & 0xfc) | 0x02,
            b[1],
            b[2],
            b[3],
            b[4] ^ b[6],
            b[5] ^ b[7],
        ])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for MacAddress {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            *byte = match parts.next().map(|p| (p.len(), u8::from_str_radix(p, 16))) {
                Some((2, Ok(value))) => value,
                _ => return refuse("MAC address", text, "write six bytes as 02:00:5e:10:00:01"),
            };
        }
        if parts.next().is_some() {
            return refuse("MAC address", text, "write six bytes as 02:00:5e:10:00:01");
        }
        Ok(Self(bytes))
    }
}
impl TryFrom<String> for MacAddress {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> String {
        mac.to_string()
    }
}
#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for MacAddress {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .examples([serde_json::json!("02:00:5e:10:00:01")])
            .into()
    }
}
#[cfg(feature = "openapi")]
impl utoipa::ToSchema for MacAddress {}

/// A host of a VDN as its MAC and VLAN, `02:00:5e:10:00:01-none`: what ONOS writes `MAC/None`,
/// without a slash so that it fits a path segment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostId(String);
text_newtype!(HostId, "02:00:5e:10:00:01-none");

impl HostId {
    /// The untagged host with this MAC.
    pub fn untagged(mac: MacAddress) -> Self {
        Self(format!("{mac}-none"))
    }
    /// The MAC in it.
    pub fn mac(&self) -> MacAddress {
        // checked when the name was made
        self.0
            .split_once('-')
            .and_then(|(mac, _)| mac.parse().ok())
            .unwrap_or(MacAddress([0; 6]))
    }
}
impl FromStr for HostId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let rule = "write MAC-none or MAC-VLAN, as 02:00:5e:10:00:01-none";
        let Some((mac, vlan)) = text.split_once('-') else {
            return refuse("host id", text, rule);
        };
        let mac: MacAddress = match mac.parse() {
            Ok(mac) => mac,
            Err(_) => return refuse("host id", text, rule),
        };
        match vlan {
            "none" => Ok(Self::untagged(mac)),
            // 1 to 4094: IEEE 802.1Q reserves 0 and 4095
            vlan => match vlan.parse::<u16>() {
                Ok(id @ 1..=4094) if vlan == id.to_string() => Ok(Self(format!("{mac}-{id}"))),
                _ => refuse("host id", text, rule),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_refuse_what_dns_and_the_kernel_refuse() {
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64), "ü"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert_eq!("lhc-2".parse::<Name>().unwrap().as_str(), "lhc-2");
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "sixteen-bytes-xx",
            "a\n",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
        assert!("fifteen-bytes-x".parse::<IfName>().is_ok());
    }

    #[test]
    fn pci_addresses_are_lower_case_and_whole() {
        assert_eq!(
            "0000:3B:00.1".parse::<PciAddress>().unwrap().as_str(),
            "0000:3b:00.1"
        );
        assert!("10000:01:00.0".parse::<PciAddress>().is_ok());
        for bad in [
            "3b:00.0",
            "0000:3b:00.8",
            "0000:3b:0.0",
            "0000:3b:00",
            "",
            "g000:00:00.0",
        ] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn host_ids_take_the_vlans_of_802_1q() {
        assert_eq!(
            "02:00:5E:10:00:01-none".parse::<HostId>().unwrap().as_str(),
            "02:00:5e:10:00:01-none"
        );
        for bad in [
            "02:00:5e:10:00:01",
            "02:00:5e:10:00:01-0",
            "02:00:5e:10:00:01-4095",
            "x-1",
        ] {
            assert!(bad.parse::<HostId>().is_err(), "{bad:?}");
        }
        assert!("02:00:5e:10:00:01-4094".parse::<HostId>().is_ok());
        assert!("02:00:5e:10:00:01-007".parse::<HostId>().is_err());
    }

    proptest! {
        #[test]
        fn mac_prints_what_it_parses(bytes: [u8; 6]) {
            let mac = MacAddress::new(bytes);
            prop_assert_eq!(mac.to_string().parse::<MacAddress>().unwrap(), mac);
        }
        #[test]
        fn local_macs_are_local_and_unicast(seed in ".*") {
            let mac = MacAddress::local_from(&seed);
            prop_assert!(mac.is_unicast());
            prop_assert_eq!(mac.bytes()[0] & 0x02, 0x02);
            prop_assert_eq!(mac, MacAddress::local_from(&seed));
        }
        #[test]
        fn no_parser_panics(text in ".{0,40}") {
            let _ = (text.parse::<Name>(), text.parse::<IfName>(), text.parse::<HostId>());
            let _ = (text.parse::<PciAddress>(), text.parse::<MacAddress>());
        }
    }
}
