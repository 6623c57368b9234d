//! Settings below `/proc/sys/net` of one namespace.

use crate::{Error, Netns, Result};
use std::{fs, io, path::PathBuf};

/// Reads a setting of a namespace; `net.ipv4.tcp_rmem`. White space between numbers comes as one
/// space, whatever the kernel wrote. `None` where this kernel or namespace has no such setting.
pub async fn read(netns: &Netns, key: &str) -> Result<Option<String>> {
    let file = path(key)?;
    let doing = format!("reading {key} in the network namespace {}", netns.name());
    match netns.run(move || fs::read_to_string(file)).await? {
        Ok(text) => Ok(Some(plain(&text))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(doing, e)),
    }
}

/// Writes a setting of a namespace, if it differs, and returns what it was before, to be written
/// back. A setting that is not there is an error.
pub async fn write(netns: &Netns, key: &str, value: &str) -> Result<String> {
    let file = path(key)?;
    let wanted = plain(value);
    let doing = format!(
        "setting {key} to {wanted:?} in the network namespace {}",
        netns.name()
    );
    let done = netns.run(move || {
        let before = plain(&fs::read_to_string(&file)?);
        if before != wanted {
            // one write: the kernel takes no second part
            fs::write(&file, wanted)?;
        }
        Ok(before)
    });
    done.await?.map_err(|e: io::Error| Error::io(doing, e))
}

/// A value as two writers of it can be compared.
pub fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As sysctl(8) reads keys: dots part the names, and a slash stands for the dot within a name
/// (`net.ipv4.conf.eth0/100.rp_filter`). Only `net` follows a namespace.
fn path(key: &str) -> Result<PathBuf> {
    let why = if !key.starts_with("net.") {
        "only settings that begin with net. belong to a network namespace"
    } else if key
        .split('.')
        .any(|part| part.is_empty() || part == "/" || part == "//")
    {
        "a name between two dots is empty"
    } else if key.contains(|c: char| c.is_whitespace() || c.is_control()) {
        "there is white space in it"
    } else {
        let names = key.split('.').map(|part| part.replace('/', "."));
        return Ok(PathBuf::from("/proc/sys").join(names.collect::<PathBuf>()));
    };
    Err(Error::invalid(format!("setting {key:?}"), why))
}

/// Lets the kernel tell the neighbours when the link comes up or gets another address: gratuitous
/// ARP and unsolicited neighbour advertisement, so that no switch or host keeps sending to the
/// place where an address was before.
pub async fn announce(netns: &Netns, link: &str) -> Result<()> {
    let name = link.replace('.', "/");
    write(netns, &format!("net.ipv4.conf.{name}.arp_notify"), "1").await?;
    let v6 = format!("net.ipv6.conf.{name}.ndisc_notify");
    // a kernel without IPv6 has nothing to announce
    if read(netns, &v6).await?.is_some() {
        write(netns, &v6, "1").await?;
    }
    Ok(())
}

/// Makes IPv6 usable on a link before it gets an address of that family: some engines switch it
/// off for whole sandboxes. Success when it is on already; an error where the kernel has none.
pub async fn enable_ipv6(netns: &Netns, link: &str) -> Result<()> {
    let name = link.replace('.', "/");
    write(netns, &format!("net.ipv6.conf.{name}.disable_ipv6"), "0").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_and_stay_below_net() {
        let of = |key: &str| path(key).map(|path| path.display().to_string());
        assert_eq!(
            of("net.ipv4.tcp_rmem").unwrap(),
            "/proc/sys/net/ipv4/tcp_rmem"
        );
        assert_eq!(
            of("net.ipv4.conf.eth0/100.rp_filter").unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"
        );
        for bad in [
            "vm.swappiness",
            "net",
            "net..x",
            "net.ipv4.",
            "net.//.x",
            "net.a b",
            "/net.x",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_compared_without_their_white_space() {
        assert_eq!(plain("4096\t131072\t6291456\n"), "4096 131072 6291456");
    }
}
