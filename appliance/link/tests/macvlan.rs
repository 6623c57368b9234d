//! macvlan children of a shared NIC, against `ip -j`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_api::MacAddress;
use dtn_link::{
    inventory, link,
    macvlan::{self, Macvlan},
};
use site::{site, witness};

const POD_MAC: MacAddress = MacAddress::new([2, 0, 0x5e, 0x10, 0, 1]);

#[tokio::test]
async fn a_macvlan_is_made_where_it_shall_be() {
    let site = site().await;
    let name = "net1".parse().unwrap();
    let wanted = Macvlan {
        master: site.nic,
        netns: &site.pod,
        name: &name,
        mode: macvlan::Mode::Bridge,
        mac: Some(POD_MAC),
        mtu: Some(8000),
    };
    let made = macvlan::create(&site.host_conn, &site.pod_conn, &wanted)
        .await
        .unwrap();
    assert_eq!(
        (made.mac, made.mtu, made.kind.as_deref()),
        (Some(POD_MAC), 8000, Some("macvlan"))
    );
    let shown = witness(&site.pod, "ip -j -d link show dev net1");
    assert_eq!(shown[0]["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(shown[0]["linkinfo"]["info_data"]["mode"], "bridge");
    assert_eq!(
        inventory::links(&site.host_conn).await.unwrap().len(),
        2,
        "lo and the NIC"
    );

    let again = macvlan::create(&site.host_conn, &site.pod_conn, &wanted)
        .await
        .unwrap_err();
    assert!(again.is_exists(), "{again}");
    let too_large = Macvlan {
        mtu: Some(9001),
        ..wanted.clone()
    };
    let error = macvlan::create(&site.host_conn, &site.pod_conn, &too_large)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("its NIC ens1 has 9000"),
        "{error}"
    );

    macvlan::delete(&site.pod_conn, &name).await.unwrap();
    macvlan::delete(&site.pod_conn, &name).await.unwrap();
    link::create_bridge(&site.pod_conn, &name, 1500)
        .await
        .unwrap();
    let error = macvlan::delete(&site.pod_conn, &name).await.unwrap_err();
    assert!(error.to_string().contains("not ours to delete"), "{error}");
}

#[tokio::test]
async fn each_mode_of_macvlan_is_the_kernels() {
    let site = site().await;
    for text in ["private", "vepa", "bridge", "passthru"] {
        let name = "net1".parse().unwrap();
        let wanted = Macvlan {
            master: site.nic,
            netns: &site.pod,
            name: &name,
            mode: text.parse().unwrap(),
            mac: None,
            mtu: None,
        };
        macvlan::create(&site.host_conn, &site.pod_conn, &wanted)
            .await
            .unwrap();
        let shown = witness(&site.pod, "ip -j -d link show dev net1");
        assert_eq!(shown[0]["linkinfo"]["info_data"]["mode"], text);
        macvlan::delete(&site.pod_conn, &name).await.unwrap();
    }
    assert!("source".parse::<macvlan::Mode>().is_err());
}
