//! The distribution's packages: which are missing, which an installation would add, and the way back.
//! apt on Debian and Ubuntu, dnf on Enterprise Linux.

use crate::{
    command::{LONG, call, may, must},
    host::Host,
};
use anyhow::{Context, Result};

/// Waits for another apt that works.
const PATIENT: &str = "DPkg::Lock::Timeout=300";

/// Those of the wanted that are not installed.
pub(crate) fn missing(host: &Host, names: &[String]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for name in names {
        let there = if host.apt {
            may("dpkg-query", &["-W", "-f", "${db:Status-Status}", name])
                .is_some_and(|said| said == "installed")
        } else {
            may("rpm", &["-q", name]).is_some()
        };
        if !there {
            missing.push(name.clone());
        }
    }
    Ok(missing)
}

/// All packages that an installation of these would add; asked before it is done.
pub(crate) fn would_add(host: &Host, names: &[String]) -> Result<Vec<String>> {
    let missing = missing(host, names)?;
    if !host.apt {
        // what comes with them dnf takes back with them
        return Ok(missing);
    }
    let words = arguments(
        &["-q", "-s", "install", "--no-install-recommends"],
        &missing,
    );
    let remedy = || {
        format!(
            "asking apt for {}; on a host without a network install these first, or give --no-packages",
            missing.join(" ")
        )
    };
    let said = match call("apt-get", &words, LONG)? {
        said if said.good => said.out,
        _ => {
            // a host whose lists are old, or that has none
            must("apt-get", &["-q", "update"], LONG).with_context(remedy)?;
            must("apt-get", &words, LONG).with_context(remedy)?
        }
    };
    Ok(added(&said))
}

/// The names in the lines of a simulated installation: `Inst NAME (VERSION …)`. An upgrade of a package
/// that is there names its old version in brackets, and is not ours to take back.
fn added(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        // NAME [OLD] (NEW …) is an upgrade
        .filter(|rest| {
            !rest
                .split(' ')
                .nth(1)
                .is_some_and(|word| word.starts_with('['))
        })
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect()
}

/// Installs them.
pub(crate) fn install(host: &Host, names: &[String]) -> Result<()> {
    let missing = missing(host, names)?;
    if missing.is_empty() {
        return Ok(());
    }
    let doing = || {
        format!(
            "installing {}; on a host without a network install these first, or give --no-packages",
            missing.join(" ")
        )
    };
    if !host.apt {
        must("dnf", &arguments(&["-y", "-q", "install"], &missing), LONG).with_context(doing)?;
        return Ok(());
    }
    let words = [
        "-q",
        "-y",
        "-o",
        PATIENT,
        "install",
        "--no-install-recommends",
    ];
    let words = arguments(&words, &missing);
    if !call("apt-get", &words, LONG)?.good {
        // old lists name files that the archive has no more
        must("apt-get", &["-q", "update"], LONG).with_context(doing)?;
        must("apt-get", &words, LONG).with_context(doing)?;
    }
    Ok(())
}

/// Removes them, with their settings. Those that others need stay, and are returned.
pub(crate) fn purge(host: &Host, names: &[String]) -> Result<Vec<String>> {
    if !host.apt {
        let there: Vec<String> = names
            .iter()
            .filter(|name| may("rpm", &["-q", name]).is_some())
            .cloned()
            .collect();
        if !there.is_empty() {
            must("dnf", &arguments(&["-y", "-q", "remove"], &there), LONG)?;
        }
        return Ok(Vec::new());
    }
    // an installation that was cut off is first brought to an end
    must("dpkg", &["--configure", "-a"], LONG)?;
    let mut there: Vec<String> = names
        .iter()
        .filter(|name| {
            may("dpkg-query", &["-W", "-f", "${db:Status-Status}", name])
                .is_some_and(|said| said != "not-installed")
        })
        .cloned()
        .collect();
    let mut stay = Vec::new();
    while !there.is_empty() {
        let said = must("apt-get", &arguments(&["-q", "-s", "purge"], &there), LONG)?;
        let others: Vec<&str> = removed(&said)
            .into_iter()
            .filter(|name| !there.iter().any(|own| own == name))
            .collect();
        if others.is_empty() {
            let words = ["-q", "-y", "-o", PATIENT, "purge"];
            must("apt-get", &arguments(&words, &there), LONG)?;
            break;
        }
        // somebody else's packages stand on some of these: which, is told by leaving one out at a time
        let needed = there.iter().position(|name| {
            let said = call("apt-get", &["-q", "-s", "purge", name], LONG);
            said.is_ok_and(|said| {
                removed(&said.out)
                    .iter()
                    .any(|other| others.contains(other))
            })
        });
        stay.push(there.remove(needed.unwrap_or(0)));
    }
    Ok(stay)
}

fn removed(said: &str) -> Vec<&str> {
    said.lines()
        .filter_map(|line| {
            line.strip_prefix("Purg ")
                .or_else(|| line.strip_prefix("Remv "))
        })
        .filter_map(|rest| rest.split(' ').next())
        .collect()
}

fn arguments<'a>(words: &[&'a str], names: &'a [String]) -> Vec<&'a str> {
    words
        .iter()
        .copied()
        .chain(names.iter().map(String::as_str))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_simulation_names_is_read() {
        let said = "Reading package lists...\nInst libsubid4 (1:4.13 Debian:12/stable [amd64])\n\
                    Inst libc6 [2.36-9] (2.36-10 Debian [amd64])\nInst podman (4.3.1 Debian [amd64])\n\
                    Conf podman (4.3.1 Debian [amd64])\n";
        assert_eq!(added(said), ["libsubid4", "podman"]);
        let said = "Purg podman [4.3.1]\nRemv buildah [1.2] [x ]\n";
        assert_eq!(removed(said), ["podman", "buildah"]);
    }
}
