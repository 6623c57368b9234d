//! Which other tool of the host has a link in its hands: NetworkManager, systemd-networkd,
//! ifupdown. Told from the state files that they keep, so that nothing has to be asked of them.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, fs, io, path::Path};

/// A tool that sets links up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Owner {
    /// NetworkManager.
    NetworkManager,
    /// systemd-networkd.
    SystemdNetworkd,
    /// Debian's `ifup` with `/etc/network/interfaces`.
    Ifupdown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NetworkManager => "NetworkManager",
            Self::SystemdNetworkd => "systemd-networkd",
            Self::Ifupdown => "ifupdown",
        })
    }
}

/// The tools that manage a link of the host whose files are below `root` (`/`).
pub fn of(root: &Path, index: u32, name: &str) -> Result<Vec<Owner>> {
    let mut owners = Vec::new();
    let state = |path: &str| read(&root.join(path));
    // [device] managed=true, and the UUID of the profile that is active on it
    if let Some(text) = state(&format!("run/NetworkManager/devices/{index}"))?
        && value(&text, "managed") == Some("true")
    {
        owners.push(Owner::NetworkManager);
    }
    // systemd-networkd writes every link it sees; `unmanaged` is what it leaves alone
    if let Some(text) = state(&format!("run/systemd/netif/links/{index}"))?
        && value(&text, "ADMIN_STATE").is_some_and(|state| state != "unmanaged")
    {
        owners.push(Owner::SystemdNetworkd);
    }
    if let Some(text) = state("run/network/ifstate")?
        && text
            .lines()
            .any(|line| line.split('=').next() == Some(name))
    {
        owners.push(Owner::Ifupdown);
    }
    Ok(owners)
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
}

fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("reading {}", file.display()), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_known_by_its_own_file() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(of(dir.path(), 2, "ens1").unwrap(), []);
        put("run/NetworkManager/devices/2", "[device]\nmanaged=true\n");
        put("run/NetworkManager/devices/3", "[device]\nmanaged=false\n");
        put(
            "run/systemd/netif/links/3",
            "ADMIN_STATE=configured\nOPER_STATE=routable\n",
        );
        put("run/systemd/netif/links/2", "ADMIN_STATE=unmanaged\n");
        put("run/network/ifstate", "lo=lo\nens4=ens4\n");
        assert_eq!(of(dir.path(), 2, "ens1").unwrap(), [Owner::NetworkManager]);
        assert_eq!(of(dir.path(), 3, "ens2").unwrap(), [Owner::SystemdNetworkd]);
        assert_eq!(of(dir.path(), 4, "ens4").unwrap(), [Owner::Ifupdown]);
        assert_eq!(of(dir.path(), 5, "ens").unwrap(), []);
    }
}
