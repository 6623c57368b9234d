//! The configuration that is proposed for this host, out of what it has. Pure. The admin reads it,
//! changes it, and it is never written again.

use crate::facts::{Facts, NicFact};
use dtn_api::{Name, nic::NicClass};
use std::fmt::Write as _;

/// What the admin said on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The host's name in its domain.
    pub(crate) name: Option<Name>,
    /// NICs that are given, with their class. Without one, those that are free are.
    pub(crate) nics: Vec<(String, NicClass)>,
    /// This host also has the controller of a domain of this name.
    pub(crate) domain: Option<Name>,
    /// No NIC is given yet.
    pub(crate) no_nics: bool,
}

/// A host's name out of that of the machine: one label of RFC 1123.
pub(crate) fn name(hostname: &str) -> Name {
    let label: String = hostname
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    match label.trim_matches('-').parse() {
        Ok(name) => name,
        // a name that is always one
        Err(_) => "dtn1".parse().unwrap_or_else(|_| unreachable!()),
    }
}

/// The NICs that are given, with their class: those that were named, or those that are free: hardware
/// that the guard lets go and that nobody manages.
pub(crate) fn given<'a>(facts: &'a Facts, wishes: &Wishes) -> Vec<(&'a NicFact, NicClass)> {
    if wishes.no_nics {
        return Vec::new();
    }
    if !wishes.nics.is_empty() {
        let by_name = |name: &str| facts.nics.iter().find(|nic| nic.name == name);
        return wishes
            .nics
            .iter()
            .filter_map(|(name, class)| Some((by_name(name)?, *class)))
            .collect();
    }
    facts
        .nics
        .iter()
        .filter(|nic| nic.is_free())
        .map(|nic| (nic, NicClass::Dedicated))
        .collect()
}

impl NicFact {
    /// Nothing of the host stands on it, and nobody sets it up.
    pub(crate) fn is_free(&self) -> bool {
        self.hardware && self.not_dedicated.is_empty() && self.owners.is_empty()
    }

    /// What it is, in a line.
    pub(crate) fn described(&self) -> String {
        let mut words = vec![
            self.driver
                .clone()
                .unwrap_or_else(|| "unknown driver".into()),
        ];
        if let Some(speed) = self.speed {
            words.push(speed.to_string());
        }
        words.push(if self.carrier { "link up" } else { "no link" }.to_owned());
        if let Some(pci) = &self.pci {
            words.push(format!("PCI {pci}"));
        }
        if let Some(mac) = self.permanent_mac.or(self.mac) {
            words.push(mac.to_string());
        }
        words.join(", ")
    }
}

/// The text of `/etc/dtn/appliance.toml`.
pub(crate) fn configuration(facts: &Facts, wishes: &Wishes) -> String {
    let host = wishes.name.clone().unwrap_or_else(|| name(&facts.hostname));
    let mut text = format!(
        "# This host of the DTN appliance. It was proposed from what the host has, and is yours now: an\n\
         # upgrade does not touch it. Every field there is: /usr/share/doc/dtn/appliance.toml\n\
         # After a change: dtnctl config check, then systemctl reload dtnd\n\n\
         version = 1\n\n\
         [host]\n\
         # The host's name in its domain: the name that it is invited by (dtnctl host invite {host}).\n\
         name = \"{host}\"\n"
    );
    nics(&mut text, facts, wishes);
    if let Some(kubelet) = &facts.kubelet {
        text.push_str(
            "\n# A kubelet was found on this host. With this table its NICs are offered in that cluster.\n\
             # It needs rights there: see docs/kubernetes.md\n\
             # [kubernetes]\n",
        );
        let _ = writeln!(text, "# node = \"{host}\"");
        let file = kubelet.kubeconfig.as_deref();
        let file = file.map_or("/etc/dtn/kubeconfig".into(), |file| {
            file.display().to_string()
        });
        let _ = writeln!(text, "# kubeconfig = \"{file}\"");
        if let Some(folder) = kubelet.bin_dirs.first()
            && folder.as_path() != std::path::Path::new("/opt/cni/bin")
        {
            let _ = writeln!(text, "\n[cni]\nbin-dir = \"{}\"", folder.display());
        }
    }
    if let Some(domain) = &wishes.domain {
        let _ = write!(
            text,
            "\n# This host also has the controller of a domain.\n\
             [domain]\nname = \"{domain}\"\n\n\
             [listen]\n\
             # Where hosts and other domains reach it; the name stands in its certificate.\n\
             address = \"0.0.0.0:8443\"\nurl = \"https://{}:8443\"\n\n\
             [addresses]\n\
             # Of members of slices; networks that nobody else uses.\n\
             ipv4 = \"10.20.0.0/16\"\nipv6 = \"fd00:20::/48\"\n",
            if facts.hostname.is_empty() {
                host.as_str()
            } else {
                &facts.hostname
            }
        );
    }
    text
}

fn nics(text: &mut String, facts: &Facts, wishes: &Wishes) {
    let given = given(facts, wishes);
    text.push_str(
        "\n# NICs that are given to the appliance, one [[nic]] for each; what is not here is never touched.\n\
         # class: \"dedicated\" moves it whole into one pod, \"shared\" gives each pod a macvlan child.\n",
    );
    for (nic, class) in &given {
        let _ = write!(
            text,
            "\n# {}: {}\n[[nic]]\n{}class = \"{class}\"\n",
            nic.name,
            nic.described(),
            selector(nic, "")
        );
        if nic.speed.is_none() && nic.pci.is_none() {
            text.push_str("# a virtual link tells no speed\nspeed = \"1Gbit\"\n");
        }
    }
    let others = facts
        .nics
        .iter()
        .filter(|nic| nic.hardware && !given.iter().any(|(other, _)| other.name == nic.name));
    for nic in others {
        let _ = write!(text, "\n# {}: {}\n", nic.name, nic.described());
        if nic.not_dedicated.is_empty() {
            text.push_str("# Not given; it could be:\n");
            let _ = write!(
                text,
                "# [[nic]]\n{}# class = \"dedicated\"\n",
                selector(nic, "# ")
            );
        } else {
            for why in &nic.not_dedicated {
                let _ = writeln!(text, "# It is not given: {why}");
            }
        }
    }
}

/// What outlives a new name: the place, else the address burnt in, else the name.
fn selector(nic: &NicFact, before: &str) -> String {
    match (&nic.pci, nic.permanent_mac) {
        (Some(pci), _) => format!("{before}pci = \"{pci}\"\n"),
        (None, Some(mac)) => format!("{before}mac = \"{mac}\"\n"),
        (None, None) => format!("{before}name = \"{}\"\n", nic.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configured::{Configured, GivenNic};
    use dtn_link::owner::Owner;

    fn nic(name: &str, pci: &str) -> NicFact {
        NicFact {
            name: name.into(),
            pci: pci.parse().ok(),
            hardware: true,
            carrier: true,
            ..NicFact::default()
        }
    }

    fn host() -> Facts {
        let taken = NicFact {
            not_dedicated: vec!["it carries the host's default route: no".into()],
            ..nic("eno1", "0000:01:00.0")
        };
        let managed = NicFact {
            owners: vec![Owner::NetworkManager],
            ..nic("ens2", "0000:02:00.0")
        };
        let virtual_link = NicFact {
            hardware: false,
            ..nic("data0", "")
        };
        Facts {
            hostname: "DTN_7.site.example".into(),
            nics: vec![taken, managed, nic("ens3", "0000:03:00.0"), virtual_link],
            ..Facts::default()
        }
    }

    #[test]
    fn only_free_nics_are_given_unasked() {
        let text = configuration(&host(), &Wishes::default());
        let read = Configured::of(&text).unwrap();
        assert_eq!(read.nics, [GivenNic::Pci("0000:03:00.0".parse().unwrap())]);
        assert!(read.host && !read.domain);
        assert!(text.contains("name = \"dtn-7\""), "{text}");
        assert!(text.contains("# It is not given: it carries the host's default route"));
        assert!(text.contains("# Not given; it could be:\n# [[nic]]\n# pci = \"0000:02:00.0\""));
    }

    #[test]
    fn what_was_named_is_given_and_nothing_else() {
        let wishes = Wishes {
            nics: vec![("data0".into(), NicClass::Shared)],
            domain: Some("daejeon".parse().unwrap()),
            ..Wishes::default()
        };
        let text = configuration(&host(), &wishes);
        let read = Configured::of(&text).unwrap();
        assert_eq!(read.nics, [GivenNic::Name("data0".into())]);
        assert!(read.domain);
        let none = Wishes {
            no_nics: true,
            ..Wishes::default()
        };
        assert!(given(&host(), &none).is_empty());
    }

    #[test]
    fn every_machine_has_a_name() {
        for (machine, expected) in [
            ("dtn1", "dtn1"),
            ("DTN_7.site", "dtn-7"),
            ("", "dtn1"),
            ("---", "dtn1"),
        ] {
            assert_eq!(name(machine).as_str(), expected);
        }
    }
}
