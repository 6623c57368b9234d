//! Pods of a cluster for people: a table of them, and one with everything that is known of it. Pure.

use super::view::{ClusterPod, Interface};
use crate::{
    table::{Table, pairs},
    wording::{distance, instant, rate},
};
use dtn_api::Rate;
use jiff::Timestamp;

/// Pods as a table; the namespace is told where there are several.
pub(crate) fn list(pods: &[ClusterPod], now: Timestamp, namespaces: bool) -> String {
    let mut headings = vec!["NAMESPACE"];
    headings.extend([
        "POD",
        "TEMPLATE",
        "PHASE",
        "NODE",
        "NIC",
        "ADDRESSES",
        "SLICE",
        "SHARE",
        "SINCE",
        "NOTE",
    ]);
    let skipped = usize::from(!namespaces);
    let mut table = Table::new(&headings[skipped..]);
    for pod in pods {
        let mut first = [
            pod.namespace.clone(),
            pod.name.clone(),
            pod.template.clone().unwrap_or_default(),
            pod.phase.to_owned(),
            pod.node.clone().unwrap_or_default(),
        ];
        let since = pod.created_at.map(|at| distance(at, now));
        let mut last = [since.unwrap_or_default(), pod.message.clone()];
        let mut interfaces: Vec<[String; 4]> = pod
            .interfaces
            .iter()
            .map(|one| {
                let slice = one.slice.clone().unwrap_or_default();
                [nic(one), one.ips.join(" "), slice, share(one)]
            })
            .collect();
        if interfaces.is_empty() {
            interfaces.push(Default::default());
        }
        for cells in interfaces {
            let row = first.iter().skip(skipped).cloned();
            table.row(row.chain(cells).chain(last.iter().cloned()));
            // further interfaces of the same pod stand below the first
            first.fill(" ".into());
            last.fill(" ".into());
        }
    }
    table.print("no pods")
}

/// One pod with everything that is known of it.
pub(crate) fn shown(pod: &ClusterPod, now: Timestamp) -> String {
    let containers: Vec<String> = pod
        .containers
        .iter()
        .map(|(name, state)| format!("{name}: {state}"))
        .collect();
    let asked = pod.created_at.map(|at| instant(at, now));
    let mut rows = vec![
        ("pod", format!("{}/{}", pod.namespace, pod.name)),
        ("phase", pod.phase.to_owned()),
        (
            "template",
            pod.template.clone().unwrap_or_else(|| "-".into()),
        ),
        ("uid", pod.uid.clone()),
        ("asked for", asked.unwrap_or_default()),
        (
            "node",
            pod.node.clone().unwrap_or_else(|| "none yet".into()),
        ),
        ("containers", containers.join("\n")),
    ];
    if !pod.message.is_empty() {
        rows.push(("note", pod.message.replace("; ", "\n")));
    }
    let mut text = pairs(&rows);
    let mut table = Table::new(&[
        "INTERFACE",
        "NIC",
        "MAC",
        "ADDRESSES",
        "SLICE",
        "SHARE",
        "UNTIL",
        "STATE",
    ]);
    for one in &pod.interfaces {
        let mut states: Vec<String> = Vec::new();
        for (kind, condition) in &one.conditions {
            states.push(match condition.holds {
                true => kind.to_lowercase(),
                false => format!("NOT {}", kind.to_lowercase()),
            });
        }
        table.row([
            one.ifname.clone(),
            nic(one),
            one.mac.clone().unwrap_or_default(),
            one.ips.join(" "),
            one.slice.clone().unwrap_or_default(),
            share(one),
            one.ends_at.map(|at| instant(at, now)).unwrap_or_default(),
            states.join(", "),
        ]);
    }
    text.push('\n');
    text.push_str(&table.print("no interfaces"));
    text
}

fn share(interface: &Interface) -> String {
    // a best-effort slice has no share
    let share = interface.share_bps.filter(|bps| *bps > 0);
    share.map_or_else(String::new, |bps| rate(Rate::from_bps(bps)))
}

fn nic(interface: &Interface) -> String {
    let class = interface
        .class
        .as_deref()
        .map(|c| c.trim_start_matches("dtn-"));
    match (&interface.nic, class) {
        (Some(nic), Some(class)) => format!("{nic} ({class})"),
        (Some(nic), None) => nic.clone(),
        (None, Some(class)) => format!("none yet ({class})"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::view::{
        of,
        tests::{claim, pod},
    };

    #[test]
    fn nic_addresses_slice_and_share_are_shown() {
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        let (ready, asked) = (claim(true), claim(false));
        let mut waits = pod();
        waits.metadata.name = Some("t2".into());
        waits.spec.as_mut().unwrap().node_name = None;
        waits.status.as_mut().unwrap().phase = Some("Pending".into());
        let pods = [
            of(&pod(), &[&ready], String::new()),
            of(&waits, &[&asked], "no node yet".into()),
        ];
        insta::assert_snapshot!("cluster_pods", list(&pods, now, false));
        insta::assert_snapshot!("cluster_pods_all", list(&pods, now, true));
        insta::assert_snapshot!("cluster_pod", shown(&pods[0], now));
    }
}
