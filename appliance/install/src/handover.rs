//! Files that tell the host's own tools to leave data NICs alone, and only these: for
//! systemd-networkd, NetworkManager and udev. Pure.

use crate::{
    configured::GivenNic,
    facts::{Facts, NicFact},
    step::{Content, Step},
};
use dtn_api::{MacAddress, PciAddress};
use std::path::Path;

/// How a tool tells one NIC from the others.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Match {
    Name(String),
    Pci(PciAddress),
    Mac(MacAddress),
}

/// A NIC with a name for its files.
struct Handed {
    /// Part of a file's name.
    label: String,
    by: Match,
    /// Its name today.
    name: Option<String>,
}

/// The files for these NICs. With `tune`, rings are as large as the hardware has them.
pub(crate) fn files(facts: &Facts, given: &[GivenNic], tune: bool) -> Vec<Step> {
    let handed: Vec<Handed> = given.iter().flat_map(|nic| handed(facts, nic)).collect();
    let mut steps = Vec::new();
    for nic in &handed {
        if facts.networkd {
            steps.push(file(
                format!("/etc/systemd/network/10-dtn-{}.network", nic.label),
                network(nic),
            ));
        }
        if tune {
            steps.push(file(
                // after a file of the admin's or of netplan's, whose names and MTU then stay: the first
                // that matches is the only one
                format!("/etc/systemd/network/90-dtn-{}.link", nic.label),
                link(nic),
            ));
        }
    }
    if facts.network_manager && !handed.is_empty() {
        steps.push(file(
            "/etc/NetworkManager/conf.d/dtn.conf".to_owned(),
            network_manager(&handed),
        ));
    }
    steps
}

const HEAD: &str = "# Of the DTN appliance, for a NIC that /etc/dtn/appliance.toml gives to it. Written anew by each\n# installation, and gone with it.\n";

fn file(path: String, text: String) -> Step {
    Step::file(path, 0o644, Content::Text(text))
}

/// What is handed over for one `[[nic]]`. A NIC that may not be taken is left to the tools that have it,
/// also when the configuration means it: without them the host would be off its network.
fn handed(facts: &Facts, given: &GivenNic) -> Vec<Handed> {
    let found = given.of(facts);
    if found.is_empty() && !given.is_pattern() {
        // in a pod, or not there yet
        return vec![Handed {
            label: label(&given.text()),
            by: by(given, None),
            name: None,
        }];
    }
    let free = found.into_iter().filter(|nic| nic.not_shared.is_empty());
    free.map(|nic| Handed {
        // what the configuration says and not today's name: the file stays the same file
        label: label(&if given.is_pattern() {
            nic.name.clone()
        } else {
            given.text()
        }),
        by: by(given, Some(nic)),
        name: Some(nic.name.clone()),
    })
    .collect()
}

/// By the address burnt in, where there is one: it stays the same in each place and under each name.
fn by(given: &GivenNic, found: Option<&NicFact>) -> Match {
    if let Some(mac) = found.and_then(|nic| nic.permanent_mac) {
        return Match::Mac(mac);
    }
    match (given, found) {
        (GivenNic::Mac(mac), _) => Match::Mac(*mac),
        (GivenNic::Pci(pci), _) => Match::Pci(pci.clone()),
        (GivenNic::Slots(_), Some(NicFact { pci: Some(pci), .. })) => Match::Pci(pci.clone()),
        (_, Some(nic)) => Match::Name(nic.name.clone()),
        (_, None) => Match::Name(given.text()),
    }
}

/// Part of a file's name.
fn label(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    text.chars().map(plain).collect()
}

/// Whether a file of an earlier installation may be that of a NIC which a pattern means and which is in
/// a pod now: it stays, or the host's tools would take the NIC when it comes home.
pub(crate) fn may_be_of_a_pod(facts: &Facts, given: &[GivenNic], path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let Some(label_there) = name.strip_prefix("10-dtn-") else {
        return false;
    };
    given.iter().any(GivenNic::is_pattern)
        && path.starts_with("/etc/systemd/network")
        && !facts.nics.iter().any(|nic| label(&nic.name) == label_there)
}

fn matched(nic: &Handed) -> String {
    match &nic.by {
        Match::Name(name) => format!("OriginalName={name}\n"),
        Match::Pci(pci) => format!("Path=pci-{pci}\n"),
        Match::Mac(mac) => format!("PermanentMACAddress={mac}\n"),
    }
}

/// systemd.network(5).
fn network(nic: &Handed) -> String {
    // .network files call the name by another key than .link files do
    let matched = matched(nic).replace("OriginalName=", "Name=");
    format!("{HEAD}[Match]\n{matched}\n[Link]\nUnmanaged=yes\n")
}

/// systemd.link(5). It takes the place of the distribution's 99-default.link for a NIC that no other file
/// is about, so the name
/// is chosen here as it is there.
fn link(nic: &Handed) -> String {
    format!(
        "{HEAD}[Match]\n{}\n[Link]\n\
         NamePolicy=keep kernel database onboard slot path\n\
         AlternativeNamesPolicy=database onboard slot path mac\n\
         MACAddressPolicy=persistent\n\
         # a burst of a fast path must not overrun the rings: fasterdata.es.net, NIC tuning\n\
         RxBufferSize=max\nTxBufferSize=max\n",
        matched(nic)
    )
}

/// NetworkManager.conf(5), a list of devices. Added to what others say there. It knows no places: a NIC
/// of which nothing but that is known goes by the name that it has today.
fn network_manager(nics: &[Handed]) -> String {
    let specs: Vec<String> = nics
        .iter()
        .filter_map(|nic| match (&nic.by, &nic.name) {
            (Match::Mac(mac), _) => Some(format!("mac:{mac}")),
            (Match::Name(name), _) | (Match::Pci(_), Some(name)) => {
                Some(format!("interface-name:{name}"))
            }
            (Match::Pci(_), None) => None,
        })
        .collect();
    format!("{HEAD}[keyfile]\nunmanaged-devices+={}\n", specs.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(step: &Step) -> (String, String) {
        match step {
            Step::File {
                path,
                content: Content::Text(text),
                ..
            } => (path.display().to_string(), text.clone()),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn each_tool_is_told_of_the_given_nics_and_of_no_other() {
        let facts = Facts {
            networkd: true,
            network_manager: true,
            nics: vec![
                NicFact {
                    name: "ens3".into(),
                    pci: "0000:03:00.0".parse().ok(),
                    permanent_mac: "0c:42:a1:00:00:01".parse().ok(),
                    ..NicFact::default()
                },
                NicFact {
                    name: "ens4".into(),
                    pci: "0000:04:00.0".parse().ok(),
                    ..NicFact::default()
                },
                NicFact {
                    name: "eno1".into(),
                    ..NicFact::default()
                },
            ],
            ..Facts::default()
        };
        let given = [
            GivenNic::Pci("0000:03:00.0".parse().unwrap()),
            GivenNic::Pci("0000:04:00.0".parse().unwrap()),
            GivenNic::Name("data0".into()),
        ];
        let files: Vec<(String, String)> = files(&facts, &given, true).iter().map(text).collect();
        assert_eq!(files.len(), 7);
        assert_eq!(
            files[0].0,
            "/etc/systemd/network/10-dtn-0000-03-00-0.network"
        );
        assert!(
            files[0]
                .1
                .contains("[Match]\nPermanentMACAddress=0c:42:a1:00:00:01\n")
        );
        assert!(files[2].1.contains("[Match]\nPath=pci-0000:04:00.0\n"));
        assert!(files[4].1.contains("[Match]\nName=data0\n"));
        assert!(files[5].1.contains("[Match]\nOriginalName=data0\n"));
        assert!(files[6].1.ends_with(
            "unmanaged-devices+=mac:0c:42:a1:00:00:01;interface-name:ens4;interface-name:data0\n"
        ));
        assert!(files.iter().all(|(_, text)| !text.contains("eno1")));
    }

    #[test]
    fn what_may_not_be_taken_stays_with_its_tools_whatever_means_it() {
        let nic = |name: &str, pci: &str, why: &[&str]| NicFact {
            name: name.into(),
            pci: pci.parse().ok(),
            not_dedicated: why.iter().map(ToString::to_string).collect(),
            not_shared: why.iter().map(ToString::to_string).collect(),
            ..NicFact::default()
        };
        let facts = Facts {
            networkd: true,
            network_manager: true,
            nics: vec![
                nic(
                    "ens1",
                    "0000:01:00.0",
                    &["it carries the host's default route: no"],
                ),
                nic("ens2", "0000:01:00.1", &[]),
            ],
            ..Facts::default()
        };
        for (given, matched) in [
            (GivenNic::Names("ens*".parse().unwrap()), "Name=ens2"),
            (
                GivenNic::Slots("0000:01:00.*".parse().unwrap()),
                "Path=pci-0000:01:00.1",
            ),
        ] {
            let files: Vec<(String, String)> =
                files(&facts, &[given], true).iter().map(text).collect();
            let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(
                names,
                [
                    "/etc/systemd/network/10-dtn-ens2.network",
                    "/etc/systemd/network/90-dtn-ens2.link",
                    "/etc/NetworkManager/conf.d/dtn.conf"
                ]
            );
            assert!(files[0].1.contains(&format!("[Match]\n{matched}\n")));
            assert!(files[2].1.ends_with("+=interface-name:ens2\n"));
        }
        let exact = [GivenNic::Name("ens1".into())];
        assert!(super::files(&facts, &exact, true).is_empty());
        // one that is in a pod keeps its file as long as a pattern may mean it
        let of_a_pod =
            |given: &[GivenNic], file: &str| may_be_of_a_pod(&facts, given, Path::new(file));
        let all = [GivenNic::Names("ens*".parse().unwrap())];
        assert!(of_a_pod(&all, "/etc/systemd/network/10-dtn-ens3.network"));
        assert!(!of_a_pod(&all, "/etc/systemd/network/10-dtn-ens1.network"));
        assert!(!of_a_pod(&all, "/usr/bin/dtnctl"));
        assert!(!of_a_pod(
            &exact,
            "/etc/systemd/network/10-dtn-ens3.network"
        ));
    }

    #[test]
    fn without_nics_and_without_tools_there_is_nothing() {
        assert!(super::files(&Facts::default(), &[], true).is_empty());
        let given = [GivenNic::Name("data0".into())];
        assert!(super::files(&Facts::default(), &given, false).is_empty());
    }
}
