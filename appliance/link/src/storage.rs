//! Which links the host's storage depends on: network file systems and block devices over the
//! network, and the link by which the kernel reaches their servers.

use crate::{Conn, Error, Result, route, sysfs::Sysfs};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::Path};

/// A mount or block device whose data comes over the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStorage {
    /// Where it is mounted, or the name of the connection.
    pub what: String,
    /// File system (`nfs4`, `ceph`), or `iscsi` or `nvme`.
    pub kind: String,
    /// The servers as the kernel names them.
    pub source: String,
    /// Their addresses, as far as the kernel tells them; names are not looked up here, because a
    /// name server that does not answer would hold everything up.
    pub servers: Vec<IpAddr>,
}

/// Storage that depends on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageLink {
    /// Index of the link that leads to the server.
    pub index: u32,
    /// The storage.
    pub storage: NetworkStorage,
}

/// What was found, and what could not be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageLinks {
    /// Links with storage behind them.
    pub found: Vec<StorageLink>,
    /// Storage over the network whose server or route the kernel does not tell: it may stand
    /// behind any link.
    pub unknown: Vec<NetworkStorage>,
}

/// File systems that come over the network.
const NETWORK_FILE_SYSTEMS: [&str; 12] = [
    "nfs",
    "nfs4",
    "ceph",
    "cifs",
    "smb3",
    "lustre",
    "glusterfs",
    "fuse.glusterfs",
    "beegfs",
    "9p",
    "afs",
    "gpfs",
];

/// The network file systems in the text of a `mountinfo` (proc(5)).
pub fn in_mountinfo(text: &str) -> Vec<NetworkStorage> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<NetworkStorage> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let mut fields = after.split(' ');
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or(""));
    if !NETWORK_FILE_SYSTEMS.contains(&kind) {
        return None;
    }
    // the kernel's clients tell the address that they resolved once
    let from_options = options.split(',').filter_map(|option| {
        let (key, value) = option.split_once('=')?;
        matches!(key, "addr" | "mountaddr").then(|| value.parse().ok())?
    });
    let mut servers: Vec<IpAddr> = from_options.chain(addresses(source)).collect();
    servers.sort();
    servers.dedup();
    Some(NetworkStorage {
        what: unescape(point),
        kind: kind.to_owned(),
        source: unescape(source),
        servers,
    })
}

/// The literal addresses in a source, as `192.0.2.1:/export`, `[2001:db8::1]:6789,192.0.2.2:/`,
/// `//192.0.2.3/share` or `192.0.2.4@tcp:/lustre`.
fn addresses(source: &str) -> impl Iterator<Item = IpAddr> + '_ {
    source.split([',', '@']).filter_map(|part| {
        let part = part.trim_start_matches('/');
        if let Some((address, _)) = part.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return address.parse().ok();
        }
        let end = part.find([':', '/']).unwrap_or(part.len());
        part[..end].parse().ok()
    })
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits.
pub(crate) fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

/// The network storage of this process's mounts and of the kernel's block devices.
pub fn of_host(mountinfo: &Path, sysfs: &Sysfs) -> Result<Vec<NetworkStorage>> {
    let text = std::fs::read_to_string(mountinfo)
        .map_err(|e| Error::io(format!("reading {}", mountinfo.display()), e))?;
    let mut found = in_mountinfo(&text);
    for (what, address) in sysfs.storage_connections()? {
        let kind = what.split(' ').next().unwrap_or_default().to_owned();
        let servers = address.parse().into_iter().collect();
        found.push(NetworkStorage {
            what,
            kind,
            source: address,
            servers,
        });
    }
    Ok(found)
}

/// The links of a namespace by which its storage is reached. `conn` is into the namespace of the
/// mounts (the host's).
pub async fn storage_links(conn: &Conn, storage: Vec<NetworkStorage>) -> Result<StorageLinks> {
    let mut links = StorageLinks::default();
    for storage in storage {
        let mut known = !storage.servers.is_empty();
        for server in &storage.servers {
            match route::resolve(conn, *server)
                .await?
                .and_then(|route| route.index)
            {
                Some(index) => links.found.push(StorageLink {
                    index,
                    storage: storage.clone(),
                }),
                None => known = false,
            }
        }
        if !known {
            links.unknown.push(storage);
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /data\\040one rw,relatime shared:9 - nfs4 store:/export rw,vers=4.2,addr=192.0.2.10,clientaddr=192.0.2.1
31 22 0:41 / /ceph rw - ceph 192.0.2.20:6789,[2001:db8::20]:6789:/ rw,name=admin
32 22 0:42 / /win rw - cifs //192.0.2.30/share rw,addr=192.0.2.30
33 22 0:43 / /l rw - lustre 192.0.2.40@tcp:/scratch rw
34 22 0:44 / /unknown rw - nfs filer:/x rw
35 22 0:45 / /tmp rw - tmpfs tmpfs rw
garbage
";

    #[test]
    fn servers_are_read_from_sources_and_options() {
        let found = in_mountinfo(MOUNTINFO);
        let told: Vec<(&str, Vec<String>)> = found
            .iter()
            .map(|s| {
                (
                    s.what.as_str(),
                    s.servers.iter().map(IpAddr::to_string).collect(),
                )
            })
            .collect();
        let ip = |text: &str| vec![text.to_owned()];
        assert_eq!(
            told,
            [
                ("/data one", ip("192.0.2.10")),
                (
                    "/ceph",
                    vec!["192.0.2.20".to_owned(), "2001:db8::20".to_owned()]
                ),
                ("/win", ip("192.0.2.30")),
                ("/l", ip("192.0.2.40")),
                ("/unknown", vec![]),
            ]
        );
    }
}
