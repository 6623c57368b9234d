//! Given NICs are switched on: a bare host leaves a data NIC off, and one that is off tells neither
//! carrier nor speed. Each is switched on once: when it is given, when it appears, when it comes home.
//! Whoever switches it off afterwards means it, and the status says so.

use crate::inventory::key_of;
use dtn_api::nic::{Nic, NicClass};
use dtn_link::{Conn, Error, Netns, inventory, link, sysctl};
use std::collections::{BTreeMap, BTreeSet};

/// What was done of it by this process.
#[derive(Debug, Default)]
pub struct SwitchOn {
    /// Of the NICs that may be: those that were on, or were switched on.
    done: BTreeSet<String>,
    /// Of those that could not be: why, so that it is said once.
    failed: BTreeMap<String, String>,
}

impl SwitchOn {
    /// Switches on what `nics` has newly given; whether there was any.
    pub async fn once(&mut self, nics: &[Nic]) -> bool {
        let given: BTreeMap<String, &Nic> = nics
            .iter()
            .filter(|nic| may_be(nic))
            .map(|nic| (key_of(&nic.identity), nic))
            .collect();
        self.done.retain(|key| given.contains_key(key));
        self.failed.retain(|key, _| given.contains_key(key));
        let mut any = false;
        for (key, nic) in given {
            if self.done.contains(&key) {
                continue;
            }
            if !nic.up {
                match switch_on(nic).await {
                    Ok(true) => tracing::info!(nic = %nic.name, "it was off and is switched on"),
                    Ok(false) => continue,
                    Err(e) => {
                        self.say_once(key, nic, &e);
                        continue;
                    }
                }
                any = true;
            }
            self.failed.remove(&key);
            self.done.insert(key);
        }
        any
    }

    fn say_once(&mut self, key: String, nic: &Nic, error: &Error) {
        let why = error.to_string();
        if self.failed.get(&key) != Some(&why) {
            tracing::warn!(nic = %nic.name, "it is off and cannot be switched on: {why}");
            self.failed.insert(key, why);
        }
    }
}

/// What the site gave, nothing speaks against, and no pod has whole.
fn may_be(nic: &Nic) -> bool {
    let here = nic.class == Some(NicClass::Shared) || nic.used_by.is_empty();
    nic.class.is_some() && nic.guarded.is_empty() && here
}

/// `false` when it has another name since the look: the next one finds it.
async fn switch_on(nic: &Nic) -> Result<bool, Error> {
    let conn = Conn::current()?;
    let found = inventory::link_named(&conn, &nic.name).await?;
    if found.mac != Some(nic.mac) {
        return Ok(false);
    }
    // a router on the data network must not give this host an address and a default route over it
    let name = nic.name.as_str().replace('.', "/");
    let key = format!("net.ipv6.conf.{name}.accept_ra");
    let netns = Netns::current()?;
    if sysctl::read(&netns, &key).await?.is_some() {
        sysctl::write(&netns, &key, "0").await?;
    }
    link::set_up(&conn, found.index).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(class: Option<&str>, used_by: &[&str], guarded: &[&str]) -> Nic {
        serde_json::from_value(serde_json::json!({
            "name": "data0", "identity": {}, "mac": "02:00:00:00:00:01", "class": class, "up": false,
            "carrier": false, "speed": null, "mtu": 1500, "driver": null, "used_by": used_by,
            "guarded": guarded,
        }))
        .unwrap()
    }

    #[test]
    fn only_what_is_given_and_free_is_switched_on() {
        for (nic, expected) in [
            (nic(Some("dedicated"), &[], &[]), true),
            (nic(Some("shared"), &["pod"], &[]), true),
            (nic(Some("dedicated"), &["pod"], &[]), false),
            (nic(None, &[], &[]), false),
            (
                nic(Some("shared"), &[], &["it carries the default route"]),
                false,
            ),
        ] {
            assert_eq!(may_be(&nic), expected, "{nic:?}");
        }
    }
}
