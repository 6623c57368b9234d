//! The fabric `onos` with a real ONOS core and real Open vSwitch, where there is such a core. One case
//! after another, since there is one core.
//!
//! What the core's southbound does is as far proven as that southbound is ONOS's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod onos_core;
mod switch;
mod wish;

use onos_core::{APP, CHANNEL, ask, config, post, there};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use switch::{
    Rig,
    host::{Host, apart, arrives, send, talk},
    outside::{NEVER, NO_WEB, Outside, SOON, WEB as WIDE, both, gated},
    pair,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Fabric, Intent, onos::Onos};
use wish::{LONG, MUCH, TWO, network, slice, until};

const JSON: &str = "application/json";

async fn programmed(fabric: &Onos, wanted: &Intent) -> Duration {
    let began = Instant::now();
    loop {
        match fabric.programmed(wanted.slice) {
            Ok(()) => return began.elapsed(),
            Err(why) => assert!(
                began.elapsed() < LONG,
                "not within {LONG:?}: {why}; {:?}",
                fabric.trouble()
            ),
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), fabric.changed()).await;
    }
}

/// A second slice, of this member and a gateway.
async fn gateway(rig: &Rig, fabric: &Onos, other: &Intent, member: &Host) {
    const WEB: &str = r#"{"priority":100,"action":"allow","direction":"outbound","match":{"proto":"tcp","dst_ports":["443"]}}"#;
    let outside = Outside::at(rig, "edge2");
    outside.route(member);
    let host = &outside.host;
    let members = vec![member.member("edge1"), outside.gateway.member("edge2")];
    let shut = slice(9, MUCH, members, &TWO);
    let told = |rules: &[&str]| {
        let wanted = gated(shut.clone(), &outside.gateway, rules);
        fabric.intend(vec![other.clone(), wanted.clone()]);
        wanted
    };
    let counted = |of: &Intent, number| {
        let decided = fabric.decided();
        decided.get(&(of.slice, number)).map_or(0, |c| c.packets)
    };
    let wanted = told(&[WEB]);
    println!("a gateway after {:?}", programmed(fabric, &wanted).await);
    assert_eq!(both(member, host, 443, SOON), [true; 2]);
    assert_eq!(both(member, host, 22, NEVER), [false; 2]);
    assert_eq!(both(host, member, 443, NEVER), [false; 2]);
    assert!(talk(member, &outside.gateway));
    until("what passed and what did not is counted", || {
        counted(&wanted, 100) > 0 && counted(&wanted, 0) > 0
    })
    .await;
    let wanted = told(&[NO_WEB, WEB]);
    println!("another rule after {:?}", programmed(fabric, &wanted).await);
    assert_eq!(fabric.check().await, []);
    until("443 is denied", || {
        both(member, host, 443, NEVER) == [false; 2]
    })
    .await;
    until("and counted", || counted(&wanted, 50) > 0).await;

    // a range is refused, since this is all that is given back of a mask
    let wanted = told(&[WIDE]);
    until("it says so", || {
        fabric
            .programmed(wanted.slice)
            .is_err_and(|why| why.contains("has a range of ports"))
    })
    .await;
    until("nothing passes", || {
        both(member, host, 443, NEVER) == [false; 2]
    })
    .await;
    let app = "org.example.mask";
    let flow = r#"{"flows":[{"priority":3,"timeout":0,"isPermanent":true,"deviceId":"of:0000000000000001","tableId":9,"selector":{"criteria":[{"type":"ETH_TYPE","ethType":"0x800"},{"type":"IP_PROTO","protocol":6},{"type":"TCP_DST_MASKED","tcpPort":448,"tcpMask":65472}]},"treatment":{"instructions":[{"type":"NOACTION"}]}}]}"#;
    post(&format!("/flows?appId={app}"), JSON, flow);
    let back = ask(&format!("/flows/application/{app}"), &[]);
    assert!(
        back.contains("TCP_DST_MASKED") && !back.contains("448"),
        "{back}"
    );
    ask(
        &format!("/flows/application/{app}"),
        &["--request", "DELETE"],
    );

    fabric.intend(vec![other.clone()]);
    until("it is gone", || {
        !rig.ofctl("dump-flows", "edge1").contains("tun_id=0x9")
    })
    .await;
}

/// Somebody else who posts a host again and again.
struct Busy {
    over: Arc<AtomicBool>,
    posting: std::thread::JoinHandle<usize>,
}
impl Busy {
    fn start() -> Self {
        const HOST: &str = r#"{"mac":"02:00:00:00:00:77","vlan":"-1","ipAddresses":["10.0.0.77"],"locations":[{"elementId":"of:0000000000000001","port":"77"}]}"#;
        let over = Arc::new(AtomicBool::new(false));
        let stop = over.clone();
        let posting = std::thread::spawn(move || {
            let mut refused = 0;
            while !stop.load(Ordering::Relaxed) {
                let said = post("/hosts", JSON, HOST);
                refused += usize::from(said.contains("409"));
            }
            ask("/hosts/02:00:00:00:00:77/None", &["--request", "DELETE"]);
            refused
        });
        Self { over, posting }
    }
    /// How many of them were refused.
    fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.posting.join().unwrap()
    }
}

/// The cookies and meters of a switch, without the mark.
fn held(rig: &Rig, switch: &str) -> usize {
    let rules = rig.ofctl("dump-flows", switch);
    let meters = rig.ofctl("dump-meters", switch);
    let rules = rules
        .lines()
        .filter(|l| l.contains("table=") && !l.contains("tun_id=0x6474"));
    rules.count() + meters.lines().filter(|l| l.contains("meter=")).count()
}

#[test]
fn slices_through_a_real_onos() {
    if !there("onos") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(cases());
}

async fn cases() {
    let stop = CancellationToken::new();
    let mut rig = Rig::start();
    for (name, id) in TWO.iter().zip(1..) {
        rig.switch(name, id);
    }
    rig.cable("edge1", "edge2");
    for name in TWO {
        rig.connect(name, CHANNEL);
    }
    let start = |owner: &'static str, stop: &CancellationToken| {
        Onos::start(network(&TWO), config(owner), stop.clone())
    };
    let first_stop = CancellationToken::new();
    let fabric: Arc<Onos> = start("here/1", &first_stop).await.unwrap();
    fabric.intend(Vec::new());
    until("ONOS has the switches", || fabric.trouble().is_none()).await;

    let (a, b, mut wanted) = pair(&rig);
    fabric.intend(vec![wanted.clone()]);
    println!("programmed after {:?}", programmed(&fabric, &wanted).await);
    assert!(talk(&a, &b), "{}", rig.ofctl("dump-flows", "edge1"));
    assert_eq!(fabric.check().await, []);
    let meters = rig.ofctl("dump-meters", "edge1");
    assert!(
        meters.contains("kbps burst") && meters.contains("rate=525000 burst_size=5000"),
        "{meters}"
    );
    let hosts = ask("/hosts", &[]);
    for word in [
        "02:00:00:00:00:01",
        "10.0.0.1",
        "slice-7",
        "of:0000000000000001",
    ] {
        assert!(hosts.contains(word), "{word}: {hosts}");
    }

    // another, unrelated controller with the same application id
    let other_stop = CancellationToken::new();
    let other = start("elsewhere/2", &other_stop).await.unwrap();
    other.intend(Vec::new());
    until("the other is refused", || {
        other
            .trouble()
            .is_some_and(|why| why.contains("is another controller's"))
    })
    .await;
    other_stop.cancel();
    assert!(talk(&a, &b), "and has taken nothing away");

    // two slices do not hear each other
    let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
    let blue = slice(8, MUCH, vec![c.member("edge1"), d.member("edge2")], &TWO);
    // while somebody else posts hosts all the time: ONOS takes one at a time and answers 409
    let busy = Busy::start();
    fabric.intend(vec![wanted.clone(), blue.clone()]);
    println!("the second after {:?}", programmed(&fabric, &blue).await);
    until("its hosts are there", || {
        ask("/hosts", &[]).contains("slice-8")
    })
    .await;
    let refused = busy.stop();
    println!("{refused} hosts of somebody else's were refused meanwhile");
    assert!(talk(&c, &d));
    a.knows(&d);
    let (from, at) = (a.socket(a.v4), d.socket(d.v4));
    assert!(!arrives(&from, &at), "isolation");
    fabric.intend(vec![wanted.clone()]);
    until("the second is gone", || apart(&c, &d)).await;
    until("its hosts are gone", || {
        !ask("/hosts", &[]).contains("slice-8")
    })
    .await;

    gateway(&rig, &fabric, &wanted, &c).await;

    // stolen addresses
    a.knows(&b);
    let (at4, at6) = (b.socket(b.v4), b.socket(b.v6));
    a.run("ip addr add 10.0.0.9/24 dev eth0");
    a.run("ip addr add fd00::9/64 dev eth0 nodad");
    for (stolen, at) in [("10.0.0.9", &at4), ("fd00::9", &at6)] {
        let from = a.socket(stolen.parse::<std::net::IpAddr>().unwrap());
        assert!(!arrives(&from, at), "{stolen} is not its address");
    }

    // rules taken away over REST come back, and it is told
    until("all is well", || fabric.trouble().is_none()).await;
    let _ = fabric.happened();
    let all = format!("/flows/application/{APP}");
    let mut taken: Option<Instant> = None;
    until("it is seen", || {
        // what a pass that is under way misses it makes good and does not call drift: once more, then
        if taken.is_none_or(|at| at.elapsed() > Duration::from_secs(15)) {
            ask(&all, &["--request", "DELETE"]);
            taken = Some(Instant::now());
        }
        fabric
            .happened()
            .iter()
            .any(|(what, ..)| *what == "switch.drift")
    })
    .await;
    programmed(&fabric, &wanted).await;
    assert!(talk(&a, &b));

    // a new rate is a new meter, and the old one goes
    let rate = 20_000_000;
    wanted.rate_bps = rate;
    fabric.intend(vec![wanted.clone()]);
    println!(
        "another rate after {:?}",
        programmed(&fabric, &wanted).await
    );
    until("the old meter is gone", || {
        let meters = rig.ofctl("dump-meters", "edge1");
        meters.contains("rate=21000") && !meters.contains("rate=525000")
    })
    .await;
    let paced = send(&a, &b, rate * 9 / 10, Duration::from_secs(2));
    let rogue = send(&a, &b, rate * 4, Duration::from_secs(3));
    assert!(paced.received > 0);
    let (seconds, bits) = (rogue.lasted.as_secs_f64(), rogue.received_bits());
    assert!(
        bits <= rate as f64 * 1.10 * seconds + 2_048_000.0,
        "{bits} bits: {rogue:?}"
    );
    until("the guards have counted", || {
        fabric
            .counters()
            .get(&wanted.slice)
            .is_some_and(|c| c.packets > paced.received)
    })
    .await;

    // the controller starts again and finds its own
    let before = ask("/meters", &[]);
    first_stop.cancel();
    drop(fabric);
    let fabric = start("here/1", &stop).await.unwrap();
    fabric.intend(vec![wanted.clone()]);
    programmed(&fabric, &wanted).await;
    assert_eq!(fabric.check().await, []);
    let ids = |text: &str| text.matches("\"id\":").count();
    assert_eq!(ids(&ask("/meters", &[])), ids(&before), "no second meter");

    // the switches start again
    rig.kill();
    until("it is seen", || fabric.trouble().is_some()).await;
    assert!(fabric.programmed(wanted.slice).is_err());
    rig.forward();
    programmed(&fabric, &wanted).await;
    until("they talk", || talk(&a, &b)).await;

    // the core starts again and has forgotten everything
    if let Ok(command) = std::env::var("DTN_ONOS_RESTART") {
        let restart = std::process::Command::new("sh")
            .args(["-c", &command])
            .status();
        assert!(restart.unwrap().success());
        until("it is seen", || fabric.trouble().is_some()).await;
        let began = Instant::now();
        while fabric.trouble().is_some() && began.elapsed() < 2 * LONG {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("ONOS is back after {:?}", began.elapsed());
        programmed(&fabric, &wanted).await;
        until("they talk", || talk(&a, &b)).await;
        assert_eq!(fabric.check().await, []);
    }

    fabric.intend(Vec::new());
    until("the switches are empty", || {
        TWO.iter().all(|name| held(&rig, name) == 0)
    })
    .await;
    assert!(apart(&a, &b));
    until("no host is left", || {
        !ask("/hosts", &[]).contains("dtnOwner")
    })
    .await;
    ask(
        &format!("/flows/application/{APP}"),
        &["--request", "DELETE"],
    );
    stop.cancel();
}
