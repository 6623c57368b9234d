//! NICs that pods and gateways hold are given back before the appliance goes: the daemon ends its pods,
//! and what is on record after it has stopped is taken home from here.

use crate::{answer, host::Host, journal::Record, units};
use anyhow::{Context, Result, bail};
use dtn_cni::{
    conf::Places,
    reconcile::{Home, Leases, reconcile},
    record,
};
use std::time::{Duration, Instant};

/// Longest time for pods to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What holds NICs, in words for a person.
pub(crate) fn holders(host: &Host) -> Vec<String> {
    let (records, _) = record::list(&Places::below(&host.root));
    records
        .iter()
        .map(|record| {
            let nics: Vec<&str> = record
                .interfaces
                .iter()
                .map(|interface| interface.before.name.as_str())
                .collect();
            match &record.pod {
                Some(pod) => format!("the pod {} holds {}", pod.name, nics.join(", ")),
                None => format!("{} holds {}", record.key, nics.join(", ")),
            }
        })
        .collect()
}

/// Ends the pods that the daemon runs, and waits until they hold nothing. Returned is what a person
/// should know: without the daemon pods are not ended.
pub(crate) fn end_pods(host: &Host) -> Result<Vec<String>> {
    let (records, _) = record::list(&Places::below(&host.root));
    let holding: Vec<String> = records
        .iter()
        .filter_map(|record| record.pod.as_ref().map(|pod| pod.name.to_string()))
        .collect();
    if !units::runs(host, "dtnd.service") {
        return Ok(outliving(&holding).into_iter().collect());
    }
    let pods = match answer::pods() {
        Ok(pods) => pods,
        // a daemon that cannot be asked must not hold a host on which nothing is at stake
        Err(_) if holding.is_empty() => return Ok(Vec::new()),
        Err(e) => bail!(
            "dtnd runs and does not answer, and pods that it alone ends hold NICs ({}): start it anew \
             (systemctl restart dtnd.service), or stop it (systemctl stop dtnd.socket dtnd.service) to \
             take the NICs out of pods that go on: {e:#}",
            holding.join(", ")
        ),
    };
    for pod in &pods {
        answer::end_pod(&pod.name)?;
    }
    let end = Instant::now() + PATIENCE;
    while !answer::pods()?.is_empty() {
        if Instant::now() > end {
            bail!(
                "pods have not ended after {} s: dtnctl pods shows them",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(Vec::new())
}

/// What is said of pods that nobody ends.
fn outliving(holding: &[String]) -> Option<String> {
    (!holding.is_empty()).then(|| {
        format!(
            "WARNING: dtnd does not run, so pods are NOT ended, and lose their NICs: {}; to end them: podman \
             pod ps, podman pod rm -f",
            holding.join(", ")
        )
    })
}

/// Stops what the records have brought, and then takes NICs home: nobody may take one again that was
/// brought home. The error is what failed.
pub(crate) fn stop_and_bring_home(host: &Host, records: &[Record]) -> Result<(), Vec<String>> {
    units::stop(host, &units::brought(records)).map_err(|e| vec![format!("{e:#}")])?;
    match bring_home(host) {
        Ok(said) => {
            said.iter().for_each(|line| println!("{line}"));
            Ok(())
        }
        Err(e) => Err(vec![format!("{e:#}")]),
    }
}

/// Takes home every NIC that is on record. For when the daemon has stopped.
fn bring_home(host: &Host) -> Result<Vec<String>> {
    let places = Places::below(&host.root);
    let (records, unreadable) = record::list(&places);
    if let Some(problem) = unreadable.first() {
        bail!("a record of a NIC that is held cannot be read: {problem}");
    }
    let mut said = Vec::new();
    if records.is_empty() {
        return Ok(said);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    for record in records {
        let home = runtime
            .block_on(reconcile(&places, &record.key, None, Leases::Release))
            .map_err(|e| anyhow::anyhow!("{e}"))
            .with_context(|| format!("taking home what {} holds", record.key))?;
        for homecoming in home {
            said.push(told(&homecoming.nic, homecoming.home));
            said.extend(homecoming.notes);
        }
    }
    Ok(said)
}

/// One that is nowhere must not hold the host for ever: it may be broken, or have been taken out.
fn told(nic: &str, home: Home) -> String {
    match home {
        Home::Home => format!("{nic} is home, and as it was"),
        Home::Deleted => format!("the child of {nic} is gone"),
        Home::Destroyed => format!("{nic} was a virtual link and is gone with its pod"),
        Home::Missing => format!(
            "WARNING: {nic} was NOT brought home: it is in no namespace that can be seen. If it is still in \
             this machine, end what pins it, or start the machine anew: it comes back by its own name and \
             with the kernel's settings"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_nobody_ends_are_named() {
        assert_eq!(outliving(&[]), None);
        let said = outliving(&["mover".into(), "sink".into()]).unwrap();
        assert!(said.contains("NOT ended") && said.contains("mover, sink"));
    }

    #[test]
    fn a_nic_that_is_nowhere_is_told_loudly() {
        assert!(told("data0", Home::Missing).starts_with("WARNING: data0"));
        assert_eq!(told("data0", Home::Home), "data0 is home, and as it was");
    }
}
