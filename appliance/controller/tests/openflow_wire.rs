//! What the fabric `openflow` says on the wire, read by Wireshark's dissector, which knows nothing of
//! us: a whole session with a real switch is well formed, and the changes in it come to what the
//! switch has afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use switch::{
    host::talk,
    outside::{NO_WEB, Outside, WEB, gated},
    run, skipped, with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{Border, BorderEnd, Fabric, Intent, network::Place};
use wish::{MUCH, ONE, network, programmed, slice, start, until};

/// `OFPT_` of what has to be in a whole session: hello, echo, features, packet-out, flow-mod,
/// group-mod, multipart, barrier, meter-mod (A.1), and of answers where there are some.
const WHOLE: [u64; 13] = [0, 2, 3, 5, 6, 13, 14, 15, 18, 19, 20, 21, 29];
const ERROR: u64 = 1;
/// What the dissector would say that it does not know. Of a field (`oxm`) it says so where a port of
/// TCP or UDP has a mask, which OpenFlow 1.3 does not have in its table 11 and Open vSwitch takes.
const PARTS: [&str; 6] = [
    "match",
    "action",
    "instruction",
    "meter_band",
    "hello_element",
    "message",
];
/// The numbers of commands that add, and those that delete (A.3.4).
const ADDS: u64 = 0;
const FLOW_DELETES_ONE: u64 = 4;
const DELETES: u64 = 2;

/// Who writes down what goes over the loopback; ended when it is dropped.
struct Capture {
    dumpcap: Child,
    file: PathBuf,
}
impl Capture {
    /// Of one TCP port, from now on.
    async fn start(file: PathBuf, port: u16) -> Self {
        let dumpcap = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "dumpcap", "-q", "-i", "lo"])
            .args(["-B", "16", "-f", &format!("tcp port {port}"), "-w"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let capture = Self { dumpcap, file };
        // it makes the file when it hears
        until("the capture has begun", || {
            std::fs::metadata(&capture.file).is_ok_and(|file| file.len() > 0)
        })
        .await;
        capture
    }
    /// Ends it, so that all of it is in the file.
    fn end(mut self) {
        run(Command::new("kill").args(["-INT", &self.dumpcap.id().to_string()]));
        assert!(self.dumpcap.wait().unwrap().success());
    }
}
impl Drop for Capture {
    fn drop(&mut self) {
        // it may have ended by itself, which is what the test then says
        let _ = self.dumpcap.kill();
        let _ = self.dumpcap.wait();
    }
}

/// What `tshark` says of a capture.
fn tshark(file: &Path, port: u16, more: &[&str]) -> String {
    run(Command::new("tshark")
        .args(["-n", "-d", &format!("tcp.port=={port},openflow"), "-r"])
        .arg(file)
        .args(more))
}
/// Every value of a field, and how often it is there.
fn values(file: &Path, port: u16, field: &str) -> BTreeMap<u64, usize> {
    let text = tshark(file, port, &["-T", "fields", "-e", field]);
    let mut all = BTreeMap::new();
    for value in text.split([',', '\n']).map(str::trim) {
        let value = match value.strip_prefix("0x") {
            _ if value.is_empty() => continue,
            Some(digits) => u64::from_str_radix(digits, 16),
            None => value.parse(),
        };
        *all.entry(value.unwrap()).or_default() += 1;
    }
    all
}

#[test]
fn a_whole_session_is_what_somebody_else_reads_in_it() {
    const TEST: &str = "openflow_wire";
    let there = |program| Command::new(program).arg("--version").output().is_ok();
    if !there("tshark") || !there("dumpcap") {
        return skipped(TEST, "needs Debian's tshark");
    }
    with_switches(TEST, async |rig| {
        rig.switch("edge1", 1);
        rig.switch("edge2", 2);
        rig.cable("edge1", "edge2");
        let (a, b) = (rig.host("edge1", "ha", 1), rig.host("edge1", "hb", 2));
        let outside = Outside::at(&rig, "edge1");
        let gateway = &outside.gateway;
        let place: Place = "edge1/edge1-edge2".parse().unwrap();
        let link: dtn_api::Name = "border".parse().unwrap();
        let mut own = network(&ONE);
        own.borders = vec![Border {
            name: link.clone(),
            peer_domain: "edge2".parse().unwrap(),
            peer_ref: link.clone(),
            capacity_bps: MUCH,
            latency_us: 0,
            mtu: 1500,
            labels: Default::default(),
            at: Some(place.clone()),
        }];
        let stop = CancellationToken::new();
        let fabric = start(own, "127.0.0.1:0".parse().unwrap(), &stop).await;
        let port = fabric.address().port();
        let capture = Capture::start(rig.path("session.pcapng"), port).await;
        let file = capture.file.clone();
        rig.connect("edge1", &format!("tcp:{}", fabric.address()));

        let (at_a, at_b) = (a.member("edge1"), b.member("edge1"));
        let mut open = slice(7, MUCH, vec![at_a, gateway.member("edge1")], &ONE);
        open.border = Some(BorderEnd {
            link,
            at: place,
            label: 1234,
        });
        let open = gated(open, gateway, &[WEB]);
        let gone = slice(8, MUCH, vec![at_b.clone()], &ONE);
        let told = async |wish: &[&Intent]| {
            fabric.intend(wish.iter().map(|intent| (*intent).clone()).collect());
            programmed(&fabric, wish).await;
        };
        told(&[&open, &gone]).await;
        // one ends, one has another rule more and a member more
        let mut more = gated(open.clone(), gateway, &[WEB, NO_WEB]);
        more.members.push(at_b);
        told(&[&more]).await;
        assert!(talk(&a, &b));
        assert_eq!(fabric.check().await, []);
        until("counters have been asked for and links probed", || {
            fabric.counters().values().any(|of| of.packets > 0)
        })
        .await;
        let has = ["dump-flows", "dump-groups", "dump-meters"]
            .map(|what| rig.ofctl(&format!("{what} --no-names"), "edge1"));
        stop.cancel();
        drop(fabric);
        capture.end();

        // not understood, or an error by the dissector's own rules (PI_ERROR, epan/proto.h)
        let wrong = [
            "_ws.malformed || _ws.expert.severity >= 0x00800000".to_owned(),
            PARTS
                .map(|part| format!("openflow_v4.{part}.undecoded"))
                .join(" || "),
        ];
        let wrong = wrong.join(" || ");
        assert_eq!(tshark(&file, port, &["-Y", &wrong]), "");
        let types = values(&file, port, "openflow_v4.type");
        assert_eq!(types.get(&ERROR), None, "nothing is refused");
        for kind in WHOLE {
            assert!(types.contains_key(&kind), "{kind} of {types:?}");
        }
        let came_to = [
            ("flowmod", FLOW_DELETES_ONE, "dump-flows", "cookie="),
            ("groupmod", DELETES, "dump-groups", "group_id="),
            ("metermod", DELETES, "dump-meters", "meter="),
        ];
        for ((field, deletes, dump, one), held) in came_to.into_iter().zip(&has) {
            let by_command = values(&file, port, &format!("openflow_v4.{field}.command"));
            let of = |command| by_command.get(&command).copied().unwrap_or_default();
            let (added, deleted) = (of(ADDS), of(deletes));
            assert!(added > 0 && deleted > 0, "{field}: {by_command:?}");
            let held = held.matches(one).count();
            // the meter of what goes to the controller is taken away before it is set, there or not
            let blind = usize::from(field == "metermod");
            assert_eq!(added - (deleted - blind), held, "{dump}: {by_command:?}");
        }
        // and they are the same rules, by their cookies
        let sent = values(&file, port, "openflow_v4.flowmod.cookie");
        let cookies = has[0].lines().filter_map(|line| {
            let (_, rest) = line.split_once("cookie=0x")?;
            u64::from_str_radix(rest.split(',').next()?, 16).ok()
        });
        for cookie in cookies {
            assert!(sent.contains_key(&cookie), "{cookie:#x}");
        }
    });
}
