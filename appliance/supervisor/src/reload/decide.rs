//! What of a new configuration can be in force at once, and what has to wait (pure).

use crate::config::{Config, NicSelector};
use dtn_api::running::{Difference, Effect};

/// What the decision hangs on besides the two configurations.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// NICs that pods hold, by how the running configuration tells them, and those pods.
    pub(super) held: Vec<(NicSelector, Vec<String>)>,
    /// Why the log level cannot be changed.
    pub(super) log_fixed: Option<String>,
    /// Why metrics cannot be served where they are wanted.
    pub(super) metrics_refused: Option<String>,
}

/// The configuration that can be in force now, and each difference with when it is.
pub(super) fn decide(
    running: &Config,
    wanted: &Config,
    mut found: Vec<Difference>,
    facts: &Facts,
) -> (Config, Vec<Difference>) {
    let mut next = wanted.clone();
    // what the tables say needs a restart
    next.host.clone_from(&running.host);
    next.podman_socket.clone_from(&running.podman_socket);
    next.kubernetes.clone_from(&running.kubernetes);

    let mut kept = Vec::new();
    for (selector, by) in &facts.held {
        let Some(old) = running.nics.iter().find(|nic| nic.selector == *selector) else {
            continue;
        };
        let why = format!(
            "{} has it: it is in force once that is gone",
            by.join(" and ")
        );
        match next.nics.iter_mut().find(|nic| nic.selector == *selector) {
            Some(new) if new.class == old.class => continue,
            Some(new) => {
                new.class = old.class;
                wait(&mut found, &why, |path| {
                    path.strip_suffix(".class")
                        .is_some_and(|entry| tells(entry, selector))
                });
            }
            None => {
                next.nics.push(old.clone());
                wait(&mut found, &why, |path| tells(path, selector));
            }
        }
        kept.push(selector);
    }
    // a gateway stands between two NICs as they are: not while one of them waits
    let touches = |config: &Config| {
        let mut gateways = config.gateways.iter();
        gateways.any(|g| kept.contains(&&g.inside) || kept.contains(&&g.outside))
    };
    if touches(wanted) || touches(running) {
        next.gateways.clone_from(&running.gateways);
        wait(&mut found, "a NIC of a gateway waits", |path| {
            path.starts_with("gateway[")
        });
    }
    if let Some(why) = &facts.log_fixed {
        next.log.clone_from(&running.log);
        wait(&mut found, why, |path| path == "log.level");
    }
    if let Some(why) = &facts.metrics_refused {
        next.metrics_listen = running.metrics_listen;
        wait(&mut found, why, |path| path == "metrics.listen");
    }
    (next, found)
}

fn wait(found: &mut [Difference], why: &str, of: impl Fn(&str) -> bool) {
    for one in found.iter_mut().filter(|one| of(&one.path)) {
        one.effect = Effect::Waits(why.into());
    }
}

/// Whether `nic["…"]` is the entry of this NIC, as it is written in the file.
fn tells(entry: &str, selector: &NicSelector) -> bool {
    let name = entry
        .strip_prefix("nic[\"")
        .and_then(|rest| rest.strip_suffix("\"]"));
    name.is_some_and(|name| selector.is_written(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NicConfig, example};
    use dtn_api::nic::NicClass;

    fn nic(name: &str, class: NicClass) -> NicConfig {
        NicConfig {
            selector: NicSelector::Name(name.parse().unwrap()),
            class,
            speed: None,
            permitted: false,
        }
    }
    fn change(path: &str) -> Difference {
        Difference {
            path: path.into(),
            old: None,
            new: None,
            effect: Effect::Live,
        }
    }

    #[test]
    fn a_nic_that_a_pod_holds_stays_as_it_is_and_the_others_change() {
        let mut running = example("dtn1");
        running.nics = ["a", "b", "c"]
            .map(|n| nic(n, NicClass::Dedicated))
            .to_vec();
        let mut wanted = example("dtn1");
        wanted.nics = vec![nic("a", NicClass::Shared), nic("d", NicClass::Shared)];
        wanted.log = "debug".into();
        let found = [
            "nic[\"a\"].class",
            "nic[\"b\"]",
            "nic[\"c\"]",
            "nic[\"d\"]",
            "log.level",
        ];
        let facts = Facts {
            held: ["a", "b"]
                .map(|n| {
                    let selector = NicSelector::Name(n.parse().unwrap());
                    (selector, vec!["pod source".to_owned()])
                })
                .to_vec(),
            ..Facts::default()
        };
        let (next, found) = decide(&running, &wanted, found.map(change).to_vec(), &facts);
        let nics: Vec<String> = next
            .nics
            .iter()
            .map(|nic| format!("{} {}", nic.selector, nic.class))
            .collect();
        assert_eq!(
            nics,
            ["name a dedicated", "name d shared", "name b dedicated"]
        );
        let waits: Vec<&str> = found
            .iter()
            .filter(|one| !one.is_live())
            .map(|one| one.path.as_str())
            .collect();
        assert_eq!(waits, ["nic[\"a\"].class", "nic[\"b\"]"]);
        assert_eq!(next.log, "debug");
    }

    #[test]
    fn what_needs_a_restart_stays() {
        let running = example("dtn1");
        let mut wanted = example("dtn2");
        wanted.podman_socket = "/run/other.sock".into();
        wanted.metrics_listen = Some("127.0.0.1:9464".parse().unwrap());
        wanted.log = "debug".into();
        let facts = Facts {
            log_fixed: Some("DTN_LOG".into()),
            metrics_refused: Some("in use".into()),
            ..Facts::default()
        };
        let found = vec![change("metrics.listen"), change("log.level")];
        let (next, found) = decide(&running, &wanted, found, &facts);
        assert_eq!(next, running);
        assert!(found.iter().all(|one| !one.is_live()));
    }
}
