//! The profile on a real network namespace: applied, read back, drifted, restored.
//!
//! Needs root, as the suite has it.

use dtn_api::{Rate, Span};
use dtn_link::{Netns, sysctl};
use dtn_tuning::{CongestionControl, Path, Setting, allow, apply, controls, drift, dtn, restore};

fn path() -> Path {
    Path {
        rate: Rate::from_bps(1_000_000_000),
        rtt: Span::from_millis(100),
        mtu: 9000,
        streams: 1,
        memory_limit: None,
    }
}

#[tokio::test]
async fn a_profile_is_applied_read_back_and_taken_back() {
    let netns = Netns::create_unnamed().unwrap();
    let offered = controls(&netns).await.unwrap();
    let settings = dtn(&path(), CongestionControl::Cubic, &offered).settings;
    let before = sysctl::read(&netns, "net.ipv4.tcp_rmem").await.unwrap();

    let outcomes = apply(&netns, &settings).await;
    for outcome in &outcomes {
        assert!(outcome.is_set(), "{outcome:?}");
        assert_eq!(outcome.actual.as_ref(), Some(&outcome.wanted));
    }
    let rmem = sysctl::read(&netns, "net.ipv4.tcp_rmem").await.unwrap();
    assert_eq!(rmem.as_deref(), Some("4096 131072 25000000"));
    assert!(drift(&netns, &settings).await.is_empty());

    sysctl::write(&netns, "net.ipv4.tcp_mtu_probing", "0")
        .await
        .unwrap();
    let drifted = drift(&netns, &settings).await;
    assert_eq!(drifted.len(), 1);
    assert_eq!(drifted[0].key, "net.ipv4.tcp_mtu_probing");

    let restored = restore(&netns, &outcomes).await;
    assert!(
        restored.iter().all(|outcome| outcome.is_set()),
        "{restored:?}"
    );
    assert_eq!(
        sysctl::read(&netns, "net.ipv4.tcp_rmem").await.unwrap(),
        before
    );
}

#[tokio::test]
async fn every_control_that_is_offered_can_be_set() {
    let netns = Netns::create_unnamed().unwrap();
    let offered = controls(&netns).await.unwrap();
    assert!(offered.admit(CongestionControl::Reno), "{offered:?}");
    let all = [
        CongestionControl::Cubic,
        CongestionControl::Bbr,
        CongestionControl::Reno,
    ];
    for control in all.into_iter().filter(|control| offered.admit(*control)) {
        let settings = dtn(&path(), control, &offered).settings;
        let outcomes = apply(&netns, &settings).await;
        assert!(
            outcomes.iter().all(|outcome| outcome.is_set()),
            "{outcomes:?}"
        );
    }
}

#[tokio::test]
async fn what_the_kernel_refuses_is_told_and_the_rest_is_done() {
    let netns = Netns::create_unnamed().unwrap();
    let setting = |key: &str, value: &str| Setting {
        key: key.to_owned(),
        value: value.to_owned(),
        why: "test".to_owned(),
        source: "test".to_owned(),
    };
    let outcomes = apply(
        &netns,
        &[
            setting("net.ipv4.tcp_congestion_control", "nosuch"),
            setting("net.ipv4.no_such_key", "1"),
            setting("vm.swappiness", "1"),
            setting("net.ipv4.tcp_mtu_probing", "1"),
        ],
    )
    .await;
    let set: Vec<bool> = outcomes.iter().map(|outcome| outcome.is_set()).collect();
    assert_eq!(set, [false, false, false, true], "{outcomes:?}");
    // the one that was refused is as it was
    assert_eq!(outcomes[0].actual, outcomes[0].before);
}

#[tokio::test]
async fn a_sandbox_does_not_touch_the_host() {
    let (netns, host) = (Netns::create_unnamed().unwrap(), Netns::current().unwrap());
    let key = "net.ipv4.tcp_slow_start_after_idle";
    let before = sysctl::read(&host, key).await.unwrap();
    let offered = controls(&netns).await.unwrap();
    let settings = dtn(&path(), CongestionControl::Cubic, &offered).settings;
    apply(&netns, &settings).await;
    assert_eq!(sysctl::read(&host, key).await.unwrap(), before);
}

#[tokio::test]
async fn a_namespace_that_is_not_the_first_cannot_widen_the_list() {
    let netns = Netns::create_unnamed().unwrap();
    let offered = controls(&netns).await.unwrap();
    for control in [CongestionControl::Cubic, CongestionControl::Bbr] {
        let outcome = allow(&netns, control).await.unwrap();
        let listed = offered.allowed.iter().any(|c| c == control.as_str());
        assert_eq!(outcome.is_none(), listed);
        assert!(outcome.is_none_or(|outcome| !outcome.is_set()));
    }
    assert_eq!(controls(&netns).await.unwrap(), offered);
}
