//! The fabric `openflow` seen by a second controller of the same switch, which reads OpenFlow by a
//! codec that knows nothing of ours (os-ken's): what the switch holds is what is wanted of it, rule by
//! rule, meter by meter, group by group, and a second controller that is a slave changes nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod switch;
mod wish;

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use switch::{
    Rig,
    host::talk,
    outside::{NO_WEB, Outside, WEB, gated},
    pair, skipped, with_switches,
};
use tokio_util::sync::CancellationToken;
use vdnd::fabric::{
    Fabric, Intent,
    difference::{Found, STEPS, difference},
    program::{Purpose, assign, cookie, programs, resolve},
};
use wish::{MUCH, TWO, network, programmed, slice, until};

const TEST: &str = "openflow_second";

/// What the second controller says.
#[derive(Debug, Deserialize)]
struct View {
    datapath: u64,
    slave: bool,
    /// The error that its own change came to: kind and code.
    refused: Option<(u16, u16)>,
    held: Lists,
    wanted: Lists,
}
/// One line each, in os-ken's words.
#[derive(Debug, Default, Deserialize)]
struct Lists {
    flows: BTreeSet<String>,
    meters: BTreeSet<String>,
    groups: BTreeSet<String>,
}
impl Lists {
    /// Without how switches find each other, and without the guard of the controller.
    fn of_slices(mut self) -> Self {
        const DISCOVERS: u64 = cookie(0, Purpose::Discover);
        self.flows.retain(|flow| {
            let flow: serde_json::Value = serde_json::from_str(flow).unwrap();
            u64::from_str_radix(flow["cookie"].as_str().unwrap(), 16) != Ok(DISCOVERS)
        });
        self.meters.retain(|meter| {
            let meter: serde_json::Value = serde_json::from_str(meter).unwrap();
            meter["id"].as_u64().unwrap() <= u64::from(dtn_openflow::METER_MAX)
        });
        self
    }
}

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Lets the switch come to a second controller too, and hands that what shall be in the switch.
fn view(rig: &Rig, switch: &str, first: &str, frames: &[Vec<u8>]) -> View {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/second/view.py");
    let mut python = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "python3", script])
        .env("PYTHONPATH", checkout().join("target/os-ken"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut wanted = python.stdin.take().unwrap();
    for frame in frames {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(wanted, "{hex}").unwrap();
    }
    drop(wanted);
    let mut said = BufReader::new(python.stdout.take().unwrap()).lines();
    let port = said.next().unwrap().unwrap();
    // the first one stays connected: it is in the new list too
    rig.vsctl(&format!(
        "set-controller {switch} {first} tcp:127.0.0.1:{port}"
    ));
    let answer = said.next().map(Result::unwrap);
    assert!(python.wait().unwrap().success());
    rig.vsctl(&format!("set-controller {switch} {first}"));
    serde_json::from_str(&answer.unwrap()).unwrap()
}

/// The frames that make an empty switch hold what is wanted of it.
fn frames(rig: &Rig, switch: &str, intents: &[Intent]) -> Vec<Vec<u8>> {
    let programs = programs(&network(&TWO), intents);
    assert!(programs.refused.is_empty(), "{:?}", programs.refused);
    let (_, program) = (programs.switches.iter())
        .find(|(name, _)| name.as_str() == switch)
        .unwrap();
    let names = rig.vsctl(&format!("list-ports {switch}"));
    let number = |name: &str| {
        let number = rig.vsctl(&format!("get interface {name} ofport"));
        (name.to_owned(), number.trim().parse::<u32>().unwrap())
    };
    let ports: BTreeMap<String, u32> = names.lines().map(number).collect();
    let (ids, without) = assign(&BTreeMap::new(), &[], &program.guards, 1000);
    assert!(without.is_empty());
    let (wanted, refused) = resolve(program, &ports, &ids);
    assert!(refused.is_empty(), "{refused:?}");
    let changes = difference(switch, &wanted, &Found::default());
    let messages = STEPS.into_iter().flat_map(|step| changes.at(step));
    let frames = messages.map(|message| {
        let message = message.clone();
        dtn_openflow::Frame { xid: 1, message }.encode()
    });
    frames.collect()
}

#[test]
fn a_second_controller_reads_in_the_switch_what_is_wanted() {
    let fetched = Command::new(checkout().join("tests/os-ken")).output();
    match fetched {
        Ok(done) if done.status.success() => {}
        Ok(done) => {
            let why = String::from_utf8_lossy(&done.stderr).into_owned();
            let last = why.trim().lines().last().unwrap_or("no word").to_owned();
            return skipped(TEST, &format!("os-ken cannot be fetched from PyPI: {last}"));
        }
        Err(error) => return skipped(TEST, &format!("tests/os-ken cannot be run: {error}")),
    }
    with_switches(TEST, async |rig| {
        let stop = CancellationToken::new();
        let fabric = switch::fabric(&rig, &TWO, &stop).await;
        let (a, b, wanted) = pair(&rig);
        let (c, d) = (rig.host("edge1", "hc", 3), rig.host("edge2", "hd", 4));
        let outside = Outside::at(&rig, "edge2");
        let members = vec![
            c.member("edge1"),
            d.member("edge2"),
            outside.gateway.member("edge2"),
        ];
        let web = slice(8, MUCH / 10, members, &TWO);
        let web = gated(web, &outside.gateway, &[NO_WEB, WEB]);
        let all = [wanted, web];
        fabric.intend(all.to_vec());
        programmed(&fabric, &all.iter().collect::<Vec<_>>()).await;
        assert_eq!(fabric.check().await, []);
        let first = format!("tcp:{}", fabric.address());
        for (name, id) in TWO.iter().zip(1..) {
            let seen = view(&rig, name, &first, &frames(&rig, name, &all));
            assert_eq!((seen.datapath, seen.slave), (id, true));
            // BAD_REQUEST, IS_SLAVE (7.5.4.2)
            assert_eq!(seen.refused, Some((1, 10)), "a slave changes nothing");
            let (held, wanted) = (seen.held.of_slices(), seen.wanted);
            println!(
                "{name}: {} rules, {} meters, {} groups",
                held.flows.len(),
                held.meters.len(),
                held.groups.len()
            );
            assert!(held.flows.len() > 20 && held.meters.len() >= 2, "{held:#?}");
            assert_eq!(held.flows, wanted.flows);
            assert_eq!(held.meters, wanted.meters);
            assert_eq!(held.groups, wanted.groups);
        }
        programmed(&fabric, &all.iter().collect::<Vec<_>>()).await;
        assert_eq!(fabric.check().await, []);
        assert!(talk(&a, &b) && talk(&c, &d), "and it went on");

        // what is not as it is wanted is seen so
        stop.cancel();
        let address = fabric.address();
        drop(fabric);
        until("nobody makes it good", || {
            std::net::TcpListener::bind(address).is_ok()
        })
        .await;
        rig.ofctl(
            "del-flows table=20,metadata=7,dl_dst=02:00:00:00:00:02",
            "edge1",
        );
        let seen = view(&rig, "edge1", &first, &frames(&rig, "edge1", &all));
        let held = seen.held.of_slices();
        let gone: Vec<&String> = seen.wanted.flows.difference(&held.flows).collect();
        assert!(
            matches!(gone.as_slice(), [one] if one.contains("02:00:00:00:00:02")),
            "{gone:?}"
        );
        assert!(held.flows.is_subset(&seen.wanted.flows));
    });
}
