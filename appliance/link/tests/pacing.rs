//! Pacing: what is set is what the kernel has and what `tc` shows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_api::Rate;
use dtn_link::{Error, qdisc, qdisc::Shaper};
use serde_json::Value;
use site::{run, site, witness};

const RATES: [u64; 6] = [
    100_000_000,
    950_000_000,
    9_880_000_000,
    10_000_000_000,
    40_000_000_000,
    100_000_000_000,
];

/// `tc -j class show` of iproute2 6.1 has no JSON for HTB: its text is read.
fn class(site: &site::Site) -> String {
    run(&site.host, "tc -s -d class show dev ens1")
}

#[tokio::test]
async fn rates_are_exact_from_100_mbit_to_100_gbit() {
    let site = site().await;
    for bps in RATES {
        let rate = Rate::from_bps(bps);
        let paced = qdisc::pace(&site.host_conn, site.nic, rate).await.unwrap();
        assert_eq!(paced.pacing.rate, rate);
        assert_eq!(paced.pacing.shaper, Shaper::Htb);
        let wanted = u64::from(qdisc::burst(rate));
        let burst = paced.pacing.burst_bytes;
        assert!(
            (wanted..=wanted + 1600).contains(&burst),
            "{rate}: {burst} for {wanted}"
        );
        let text = class(&site);
        let shown = match bps {
            100_000_000 => "rate 100Mbit ceil 100Mbit linklayer ethernet",
            950_000_000 => "rate 950Mbit ceil 950Mbit linklayer ethernet",
            9_880_000_000 => "rate 9880Mbit ceil 9880Mbit linklayer ethernet",
            10_000_000_000 => "rate 10Gbit ceil 10Gbit linklayer ethernet",
            40_000_000_000 => "rate 40Gbit ceil 40Gbit linklayer ethernet",
            _ => "rate 100Gbit ceil 100Gbit linklayer ethernet",
        };
        assert!(text.contains(shown), "{text}");
    }
    // changed in place: one class and one leaf
    assert_eq!(class(&site).matches("class htb").count(), 1);
    let qdiscs = witness(&site.host, "tc -j qdisc show dev ens1");
    assert_eq!(qdiscs.as_array().unwrap().len(), 2, "{qdiscs}");
    assert_eq!(qdiscs[0]["kind"], "htb");
    assert_eq!(qdiscs[0]["root"], true);
    assert_eq!(qdiscs[0]["options"]["default"], "0x1");
}

#[tokio::test]
async fn the_leaf_is_fq_or_its_lack_is_said() {
    let site = site().await;
    let rate = Rate::from_bps(950_000_000);
    let paced = qdisc::pace(&site.host_conn, site.nic, rate).await.unwrap();
    let again = qdisc::pace(&site.host_conn, site.nic, rate).await.unwrap();
    assert_eq!(paced.lacking, again.lacking, "the same twice says the same");
    let qdiscs = witness(&site.host, "tc -j qdisc show dev ens1");
    let leaf = &qdiscs.as_array().unwrap()[1];
    match paced.pacing.leaf.as_deref() {
        Some("fq") => {
            assert!(paced.lacking.is_empty());
            assert_eq!(leaf["kind"], "fq");
        }
        Some("pfifo") => {
            assert!(
                paced.lacking[0].starts_with("fq unavailable"),
                "{:?}",
                paced.lacking
            );
            assert_eq!(leaf["kind"], "pfifo");
            assert_eq!(leaf["options"]["limit"], qdisc::LEAF_PACKETS);
        }
        leaf => panic!("{leaf:?}"),
    }
}

#[tokio::test]
async fn pacing_is_taken_off_and_taking_it_off_twice_is_success() {
    let site = site().await;
    let conn = &site.host_conn;
    let plain = qdisc::kinds(conn, site.nic).await.unwrap();
    assert_eq!(qdisc::current_pacing(conn, site.nic).await.unwrap(), None);
    qdisc::unpace(conn, site.nic).await.unwrap();
    qdisc::pace(conn, site.nic, Rate::from_bps(10_000_000_000))
        .await
        .unwrap();
    assert_ne!(qdisc::kinds(conn, site.nic).await.unwrap(), plain);
    qdisc::unpace(conn, site.nic).await.unwrap();
    qdisc::unpace(conn, site.nic).await.unwrap();
    assert_eq!(qdisc::current_pacing(conn, site.nic).await.unwrap(), None);
    assert_eq!(qdisc::kinds(conn, site.nic).await.unwrap(), plain);
}

#[tokio::test]
async fn another_root_is_replaced_whatever_it_is() {
    let rate = Rate::from_bps(100_000_000);
    for (number, foreign) in [
        &["qdisc add dev ens1 root handle 1: pfifo limit 7"][..],
        &["qdisc add dev ens1 root pfifo limit 7"],
        // ours, cut off between its steps
        &["qdisc add dev ens1 root handle 1: htb default 1"],
        &[
            "qdisc add dev ens1 root handle 1: htb default 1",
            "class add dev ens1 parent 1: classid 1:1 htb rate 5mbit",
        ],
        // somebody else's
        &["qdisc add dev ens1 root handle 7: htb default 9"],
        &[
            "qdisc add dev ens1 root handle 1: htb default 2",
            "class add dev ens1 parent 1: classid 1:1 htb rate 5mbit",
            "class add dev ens1 parent 1: classid 1:2 htb rate 6mbit",
            "qdisc add dev ens1 parent 1:1 handle 99: pfifo limit 3",
        ],
        &[
            "qdisc add dev ens1 root handle 1: htb default 1",
            "class add dev ens1 parent 1: classid 1:1 htb rate 5mbit",
            "qdisc add dev ens1 parent 1:1 handle 99: pfifo limit 3",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let site = site().await;
        for command in foreign {
            run(&site.host, &format!("tc {command}"));
        }
        let paced = qdisc::pace(&site.host_conn, site.nic, rate).await.unwrap();
        assert_eq!(paced.pacing.rate, rate, "{number}");
        let text = class(&site);
        assert!(text.contains("rate 100Mbit"), "{number}: {text}");
        assert_eq!(text.matches("class htb").count(), 1, "{number}: {text}");
        let qdiscs = witness(&site.host, "tc -j qdisc show dev ens1");
        assert_eq!(qdiscs.as_array().unwrap().len(), 2, "{number}: {qdiscs}");
        assert_eq!(qdiscs[1]["handle"], "10:", "{number}");
    }
}

#[tokio::test]
async fn an_htb_of_tc_is_read_as_tc_set_it() {
    let site = site().await;
    run(
        &site.host,
        "tc qdisc add dev ens1 root handle 1: htb default 1",
    );
    run(
        &site.host,
        "tc class add dev ens1 parent 1: classid 1:1 htb rate 40gbit burst 1mb",
    );
    let read = qdisc::current_pacing(&site.host_conn, site.nic)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(read.rate, Rate::from_bps(40_000_000_000));
    assert_eq!(read.leaf, None);
}

#[tokio::test]
async fn tbf_is_exact_too() {
    let site = site().await;
    for bps in RATES {
        let rate = Rate::from_bps(bps);
        let pacing = qdisc::pace_tbf(&site.host_conn, site.nic, rate, 10_000_000)
            .await
            .unwrap();
        assert_eq!((pacing.shaper, pacing.rate), (Shaper::Tbf, rate));
        let shown = witness(&site.host, "tc -j -d qdisc show dev ens1");
        assert_eq!(shown[0]["kind"], "tbf");
        assert_eq!(shown[0]["options"]["rate"], Value::from(bps / 8), "{shown}");
    }
}

#[tokio::test]
async fn fq_at_the_root_limits_each_flow_or_is_refused_whole() {
    let site = site().await;
    let rate = Rate::from_bps(2_000_000_000);
    match qdisc::pace_fq(&site.host_conn, site.nic, rate).await {
        Ok(pacing) => assert_eq!((pacing.shaper, pacing.rate), (Shaper::Fq, rate)),
        Err(e @ Error::Kernel { .. }) => {
            println!("skipped: this kernel has no fq ({e})");
            assert!(e.is_not_found());
            assert_eq!(
                qdisc::current_pacing(&site.host_conn, site.nic)
                    .await
                    .unwrap(),
                None
            );
        }
        Err(e) => panic!("{e}"),
    }
}

#[tokio::test]
async fn what_was_sent_is_counted() {
    let site = site().await;
    let conn = &site.host_conn;
    let net = "192.0.2.1/24".parse().unwrap();
    dtn_link::address::add(conn, site.nic, net).await.unwrap();
    qdisc::pace(conn, site.nic, Rate::from_bps(100_000_000))
        .await
        .unwrap();
    let before = qdisc::current_pacing(conn, site.nic)
        .await
        .unwrap()
        .unwrap()
        .counters;
    site.host
        .run(|| {
            let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.send_to(&[0; 1000], "192.0.2.255:9").unwrap();
        })
        .await
        .unwrap();
    let after = qdisc::current_pacing(conn, site.nic)
        .await
        .unwrap()
        .unwrap()
        .counters;
    // 14 Ethernet, 20 IP, 8 UDP: HTB counts frames
    assert!(after.bytes - before.bytes >= 1042, "{before:?} {after:?}");
    assert!(after.packets > before.packets);
}

#[tokio::test]
async fn a_rate_of_nothing_and_a_link_that_is_not_there_are_refused() {
    let site = site().await;
    let conn = &site.host_conn;
    assert!(
        qdisc::pace(conn, site.nic, Rate::from_bps(7))
            .await
            .is_err()
    );
    let error = qdisc::pace(conn, 999, Rate::from_bps(1_000_000))
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}
