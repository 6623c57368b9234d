//! Namespaces: opened, refused, made, bound, entered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod site;

use dtn_link::{Conn, Netns, inventory, netns::unbind, sysctl};
use std::path::Path;

/// Unbinds also when the test fails.
struct Bound(std::path::PathBuf);
impl Drop for Bound {
    fn drop(&mut self) {
        let _ = unbind(&self.0);
    }
}

#[tokio::test]
async fn only_network_namespaces_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    for (path, says) in [
        (plain.as_path(), "not a namespace"),
        (dir.path(), "not a namespace"),
        (Path::new("/proc/self/ns/mnt"), "another kind"),
        (Path::new("/dev/null"), "not a namespace"),
    ] {
        let error = Netns::open(path).unwrap_err().to_string();
        assert!(error.contains(says), "{path:?}: {error}");
    }
    let missing = dir.path().join("missing");
    assert!(Netns::open(&missing).unwrap_err().is_not_found());
    assert!(!missing.exists(), "opening makes no file");
    assert_eq!(
        Netns::open(Path::new("/proc/self/ns/net")).unwrap(),
        Netns::current().unwrap()
    );
}

#[tokio::test]
async fn a_fifo_does_not_hang_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(Netns::open(&fifo).is_err());
}

#[tokio::test]
async fn a_named_namespace_outlives_its_handle_until_it_is_unbound() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netns_named");
    let _bound = Bound(path.clone());
    let made = Netns::create_named(&path).unwrap();
    let inode = made.inode();
    // the file is taken: nothing is put on top
    assert!(Netns::create_named(&path).unwrap_err().is_exists());
    drop(made);
    let again = Netns::open(&path).unwrap();
    assert_eq!(again.inode(), inode);
    let links = inventory::links(&again.connect().await.unwrap())
        .await
        .unwrap();
    assert_eq!(links.len(), 1);
    assert!(links[0].loopback);
    unbind(&path).unwrap();
    unbind(&path).unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_namespace_without_a_name_can_be_bound_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("netns_bound");
    let _bound = Bound(path.clone());
    let netns = Netns::create_unnamed().unwrap();
    netns.bind(&path).unwrap();
    assert_eq!(Netns::open(&path).unwrap(), netns);
    unbind(&path).unwrap();
}

#[tokio::test]
async fn work_in_a_namespace_leaves_the_callers_thread_where_it_was() {
    let before = Netns::current().unwrap();
    let netns = Netns::create_unnamed().unwrap();
    let there = netns
        .run(|| Netns::current().unwrap().inode())
        .await
        .unwrap();
    assert_eq!(there, netns.inode());
    assert_eq!(
        netns.run_blocking(|| Netns::current().unwrap()).unwrap(),
        netns
    );
    netns.connect().await.unwrap();
    assert_eq!(Netns::current().unwrap(), before);
}

#[tokio::test]
async fn a_panic_in_a_namespace_is_an_error() {
    let netns = Netns::create_unnamed().unwrap();
    let error = netns.run(|| panic!("boom")).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

/// The plugins' runtime: one thread for everything.
#[test]
fn two_namespaces_are_read_on_a_runtime_of_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let netns = Netns::create_unnamed().unwrap();
        let (here, there) = (Conn::current().unwrap(), netns.connect().await.unwrap());
        assert!(!inventory::links(&here).await.unwrap().is_empty());
        assert_eq!(inventory::links(&there).await.unwrap().len(), 1);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_many_tasks_stay_in_their_namespaces() {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..16 {
        tasks.spawn(async move {
            let netns = Netns::create_unnamed().unwrap();
            let conn = netns.connect().await.unwrap();
            let name = format!("br{number}").parse().unwrap();
            dtn_link::link::create_bridge(&conn, &name, 1500)
                .await
                .unwrap();
            let links = inventory::links(&conn).await.unwrap();
            assert_eq!(links.len(), 2);
            assert_eq!(links[1].name, name.as_str());
        });
    }
    assert_eq!(tasks.join_all().await.len(), 16);
}

#[tokio::test]
async fn a_setting_is_written_in_one_namespace_and_written_back() {
    let (netns, other) = (
        Netns::create_unnamed().unwrap(),
        Netns::create_unnamed().unwrap(),
    );
    let key = "net.ipv4.tcp_mtu_probing";
    let before = sysctl::write(&netns, key, "1").await.unwrap();
    assert_eq!(before, "0");
    assert_eq!(
        sysctl::read(&netns, key).await.unwrap().as_deref(),
        Some("1")
    );
    assert_eq!(
        sysctl::read(&other, key).await.unwrap().as_deref(),
        Some("0")
    );
    assert_eq!(sysctl::write(&netns, key, &before).await.unwrap(), "1");
    assert_eq!(
        sysctl::read(&netns, key).await.unwrap().as_deref(),
        Some("0")
    );
    assert_eq!(
        sysctl::read(&netns, "net.ipv4.no_such").await.unwrap(),
        None
    );
    assert!(
        sysctl::write(&netns, "net.ipv4.no_such", "1")
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn counters_are_those_of_the_namespace() {
    let netns = Netns::create_unnamed().unwrap();
    let fresh = dtn_link::counters::tcp(&netns).await.unwrap();
    assert_eq!(fresh, dtn_link::counters::TcpCounters::default());
    site::run(&netns, "ip link set lo up");
    // a connection that nobody takes: one segment out, one reset back
    netns
        .run(|| std::net::TcpStream::connect("127.0.0.1:9").unwrap_err())
        .await
        .unwrap();
    let after = dtn_link::counters::tcp(&netns).await.unwrap().since(&fresh);
    assert!(after.segments_out >= 1, "{after:?}");
    assert_eq!(after.retransmitted, 0);
}
