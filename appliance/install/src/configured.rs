//! What the admin's configuration says, as far as the installer has to know it: which NICs are given,
//! and which daemons have a table. Whether it is valid is judged by the daemons themselves.

use crate::facts::{Facts, NicFact, below};
use anyhow::{Context, Result};
use dtn_api::{MacAddress, Pattern, PciAddress};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The one file.
pub(crate) const FILE: &str = "/etc/dtn/appliance.toml";
/// Its drop-ins.
pub(crate) const DROP_INS: &str = "/etc/dtn/appliance.d";

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Configured {
    /// There is a `[host]`: `dtnd` runs.
    pub(crate) host: bool,
    /// There is a `[domain]`: `vdnd` runs.
    pub(crate) domain: bool,
    /// The NICs that are given.
    pub(crate) nics: Vec<GivenNic>,
}

/// By what a NIC is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GivenNic {
    /// Its name.
    Name(String),
    /// Where it sits.
    Pci(PciAddress),
    /// Its permanent address.
    Mac(MacAddress),
    /// Each whose name is like this.
    Names(Pattern),
    /// Each that sits where the address is like this.
    Slots(Pattern),
}

impl GivenNic {
    /// Whether it can mean several.
    pub(crate) fn is_pattern(&self) -> bool {
        matches!(self, Self::Names(_) | Self::Slots(_))
    }
    /// How the file writes it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Pci(pci) => pci.to_string(),
            Self::Mac(mac) => mac.to_string(),
            Self::Names(pattern) | Self::Slots(pattern) => pattern.to_string(),
        }
    }
    /// The NICs of the host that it means now. One in a pod is not among them.
    pub(crate) fn of<'a>(&self, facts: &'a Facts) -> Vec<&'a NicFact> {
        let means = |nic: &&NicFact| match self {
            Self::Name(name) => nic.name == *name,
            Self::Pci(pci) => nic.pci.as_ref() == Some(pci),
            Self::Mac(mac) => nic.permanent_mac == Some(*mac),
            Self::Names(pattern) => pattern.matches(&nic.name),
            Self::Slots(pattern) => {
                let pci = nic.pci.as_ref();
                pci.is_some_and(|pci| pattern.matches(pci.as_str()))
            }
        };
        facts.nics.iter().filter(means).collect()
    }
}

/// Reads the file and its drop-ins; none where there is no file.
pub(crate) fn read(root: &Path) -> Result<Option<Configured>> {
    let file = below(root, FILE);
    if !file.exists() {
        return Ok(None);
    }
    let mut files = vec![file];
    if let Ok(entries) = fs::read_dir(below(root, DROP_INS)) {
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
            .collect();
        found.sort();
        files.extend(found);
    }
    let mut configured = Configured::default();
    for file in files {
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        configured
            .take(&text)
            .with_context(|| format!("reading {}", file.display()))?;
    }
    Ok(Some(configured))
}

impl Configured {
    /// Of one text.
    pub(crate) fn of(text: &str) -> Result<Self> {
        let mut configured = Self::default();
        configured.take(text)?;
        Ok(configured)
    }

    fn take(&mut self, text: &str) -> Result<()> {
        let table: toml::Table = text
            .parse()
            .context("it is not TOML: mend it (dtnctl config check says where)")?;
        self.host |= table.contains_key("host");
        self.domain |= table.contains_key("domain");
        let nics = table.get("nic").and_then(toml::Value::as_array);
        for nic in nics.into_iter().flatten() {
            let key = |key: &str| key_of(nic, key);
            // what is wrong with one is told by the daemon, with its field
            let like = |key: &str| {
                let text = key_of(nic, key).filter(|text| Pattern::is_meant(text))?;
                text.parse::<Pattern>().ok()
            };
            let given = if let Some(slots) = like("pci") {
                GivenNic::Slots(slots.in_lower_case())
            } else if let Some(names) = like("name") {
                GivenNic::Names(names)
            } else if let Some(pci) = key("pci").and_then(|pci| pci.parse().ok()) {
                GivenNic::Pci(pci)
            } else if let Some(mac) = key("mac").and_then(|mac| mac.parse().ok()) {
                GivenNic::Mac(mac)
            } else if let Some(name) = key("name") {
                GivenNic::Name(name.to_owned())
            } else {
                continue;
            };
            if !self.nics.contains(&given) {
                self.nics.push(given);
            }
        }
        Ok(())
    }
}

fn key_of<'a>(nic: &'a toml::Value, key: &str) -> Option<&'a str> {
    nic.get(key).and_then(toml::Value::as_str)
}

/// The folders in which a containerd looks for network plugins, out of its configuration, wherever in
/// its tables they stand: their place differs from version to version.
pub(crate) fn plugin_folders(text: &str) -> Vec<PathBuf> {
    fn look(value: &toml::Value, found: &mut Vec<PathBuf>) {
        let Some(table) = value.as_table() else {
            return;
        };
        for (key, value) in table {
            match (key.as_str(), value) {
                ("bin_dir", toml::Value::String(folder)) if !folder.is_empty() => {
                    found.push(folder.into());
                }
                ("bin_dirs", toml::Value::Array(folders)) => {
                    found.extend(folders.iter().filter_map(|f| f.as_str()).map(PathBuf::from));
                }
                _ => look(value, found),
            }
        }
    }
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        look(&toml::Value::Table(table), &mut found);
    }
    found.retain(|folder| folder.is_absolute());
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_and_tables_are_found_in_the_file_and_its_drop_ins() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/dtn/appliance.d")).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let file = below(dir.path(), FILE);
        fs::write(
            &file,
            "version = 1\n[host]\nname = \"a\"\n[[nic]]\nname = \"data0\"\nclass = \"shared\"\n",
        )
        .unwrap();
        fs::write(
            below(dir.path(), "/etc/dtn/appliance.d/10.toml"),
            "[[nic]]\npci = \"0000:3b:00.0\"\n[[nic]]\npci = \"0000:3B:01.*\"\n[[nic]]\nname = \"ens*\"\n[domain]\nname = \"x\"\n",
        )
        .unwrap();
        let found = read(dir.path()).unwrap().unwrap();
        assert!(found.host && found.domain);
        assert_eq!(
            found.nics,
            [
                GivenNic::Name("data0".into()),
                GivenNic::Pci("0000:3b:00.0".parse().unwrap()),
                GivenNic::Slots("0000:3b:01.*".parse().unwrap()),
                GivenNic::Names("ens*".parse().unwrap())
            ]
        );
        fs::write(&file, "[host\n").unwrap();
        assert!(read(dir.path()).is_err());
    }

    #[test]
    fn a_containerd_says_where_its_plugins_are() {
        for (text, expected) in [
            (
                "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\n",
                vec!["/usr/lib/cni"],
            ),
            (
                "[plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"/opt/cni/bin\", \"/x\"]\n",
                vec!["/opt/cni/bin", "/x"],
            ),
            ("", vec![]),
            ("bin_dir = [", vec![]),
        ] {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(plugin_folders(text), expected);
        }
    }
}
