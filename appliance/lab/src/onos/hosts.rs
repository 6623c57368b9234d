//! The pods in ONOS's own list of hosts, as anybody sees them who looks there: name, addresses, and
//! the switch and port where they are.

use super::{REST_PORT, credentials, given};
use crate::{
    capsule::Lab,
    place::Place,
    pods::Running,
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result, bail, ensure};
use dtn_measure::report::ListedHost;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// Longest list that is read, bytes.
const LONGEST: u64 = 4 << 20;
/// Longest time until a pod is in the list: the controller posts it once it has asked for what is there.
const PATIENCE: Duration = Duration::from_secs(40);

/// Plays the part that asks, on a site's host: prints what ONOS answers.
pub fn print(place: &Place, site: usize) -> Result<()> {
    let file = credentials(place, site);
    let secret =
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), REST_PORT);
    let answer = given::exchange(to, secret.trim(), "/onos/v1/hosts", LONGEST)
        .with_context(|| format!("asking the ONOS at {to} for its hosts"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("what ONOS answers is no HTTP")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(
        status == "200",
        "ONOS answers {status} when asked for its hosts"
    );
    println!("{body}");
    Ok(())
}

/// A site's pod as its ONOS lists it; waits until it does.
pub async fn listed(lab: &Lab, site: &Site, pod: &Running) -> Result<ListedHost> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut command = site.command(&lab.program);
        command
            .args(["lab", "part", "onos-hosts", "--site", site.name, "--state"])
            .arg(lab.place.state());
        let text = shell::output(command, None, SHORT).await?;
        let answer = serde_json::from_str(&text)
            .with_context(|| format!("reading the hosts of the ONOS of {}", site.name))?;
        if let Some(host) = find(&answer, site.name, pod) {
            return Ok(host);
        }
        if Instant::now() >= end {
            bail!(
                "the ONOS of {} does not list the pod {} with {:?} after {} s",
                site.name,
                pod.name,
                pod.addresses,
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The host that has all of a pod's addresses, and a place.
fn find(answer: &Value, site: &str, pod: &Running) -> Option<ListedHost> {
    let wanted: BTreeSet<IpAddr> = pod.addresses.iter().copied().collect();
    let hosts = answer["hosts"].as_array()?.iter();
    let mut found = hosts.filter_map(|host| {
        let addresses: BTreeSet<IpAddr> = host["ipAddresses"]
            .as_array()?
            .iter()
            .filter_map(|ip| ip.as_str()?.parse().ok())
            .collect();
        let place = host["locations"].as_array()?.first()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = text(&host["annotations"]["name"]).or_else(|| text(&host["id"]))?;
        addresses.is_superset(&wanted).then_some(ListedHost {
            site: site.into(),
            pod: pod.name.clone(),
            name,
            mac: text(&host["mac"])?,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            location: format!("{}/{}", text(&place["elementId"])?, text(&place["port"])?),
        })
    });
    found.next().filter(|_| !wanted.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_found_by_all_of_its_addresses_and_has_a_place() {
        let pod = Running {
            name: "transfer".into(),
            container: "c".into(),
            pid: 1,
            netns: "/n".into(),
            ifname: "data0".into(),
            addresses: vec!["10.20.0.1".parse().unwrap(), "fd00:20::1".parse().unwrap()],
            ready: Duration::ZERO,
        };
        let host = |ips: Value, locations: Value| {
            json!({"hosts": [{"id": "02:00:00:00:00:01/None", "mac": "02:00:00:00:00:01",
                "ipAddresses": ips, "locations": locations,
                "annotations": {"name": "lab-02:00:00:00:00:01"}}]})
        };
        let place = json!([{"elementId": "of:0000000000000002", "port": "3"}]);
        let both = json!(["10.20.0.1", "FD00:20:0:0:0:0:0:1"]);
        let found = find(&host(both.clone(), place.clone()), "daejeon", &pod).unwrap();
        assert_eq!(found.location, "of:0000000000000002/3");
        assert_eq!(found.name, "lab-02:00:00:00:00:01");
        assert_eq!(found.addresses, ["10.20.0.1", "fd00:20::1"]);
        let one = json!(["10.20.0.1"]);
        assert_eq!(find(&host(one, place), "daejeon", &pod), None);
        assert_eq!(find(&host(both, json!([])), "daejeon", &pod), None);
    }
}
