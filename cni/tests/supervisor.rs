//! What the plugins make of a supervisor that refuses, babbles or is silent. The supervisor here is
//! a double, for its errors alone: what a real one prepares is tested with the real one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;

use bench::{Bench, NIC, code, good};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    sync::mpsc,
};

/// Answers each connection with these bytes and passes on what it was asked.
fn double(bench: &Bench, answer: Vec<u8>) -> mpsc::Receiver<String> {
    let socket = bench.places().socket;
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let (sender, receiver) = mpsc::channel();
    // it ends with the test's process; its socket goes with the bench's folder
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = vec![0; 65_536];
            let count = stream.read(&mut asked).unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&asked[..count]).into_owned());
            let _ = stream.write_all(&answer);
        }
    });
    receiver
}

fn http(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn problem(status: u16, retryable: bool) -> String {
    json!({"type": "about:blank", "title": "no room", "status": status, "detail": "d",
        "code": "slice/no-capacity", "retryable": retryable})
    .to_string()
}

#[test]
fn a_refusal_an_oddity_and_a_silence_each_have_their_code() {
    let never_ends = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n{}",
        "x".repeat(2 << 20)
    );
    for (what, answer, expected) in [
        (
            "try later",
            http("503 Service Unavailable", &problem(503, true)),
            11,
        ),
        ("never", http("409 Conflict", &problem(409, false)), 999),
        (
            "no problem document",
            http("500 Internal Server Error", "oops"),
            999,
        ),
        ("no JSON", http("200 OK", "<html>"), 999),
        ("another shape", http("200 OK", "{\"version\":1}"), 999),
        ("no HTTP", b"220 mail\r\n".to_vec(), 11),
        ("nothing", Vec::new(), 11),
        ("too much", never_ends.into_bytes(), 11),
    ] {
        let bench = Bench::new();
        let asked = double(&bench, answer);
        let conf = bench.conf(json!({"device": NIC}));
        let output = bench.call(&bench.verb("vdn-host-device", "ADD", "u1"), &conf);
        assert_eq!(code(&output), expected, "{what}: {output:?}");
        let question = asked.recv().unwrap();
        assert!(
            question.starts_with("POST /dtn/v1/cni/prepare "),
            "{question}"
        );
        let body: Value = serde_json::from_str(question.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(
            (&body["key"], &body["ifname"]),
            (&json!("u1"), &json!("data0"))
        );
        bench.assert_home(what);
        assert!(bench.files("attachments").is_empty(), "{what}");
    }
}

#[test]
fn a_supervisor_that_babbles_stops_neither_add_nor_del_of_what_is_prepared() {
    let bench = Bench::new();
    let asked = double(&bench, http("500 Internal Server Error", "oops"));
    let conf = bench.conf(json!({}));
    bench.prepare("u1", "dedicated");
    good(&bench.call(&bench.verb("vdn-host-device", "ADD", "u1"), &conf));
    good(&bench.call(&bench.verb("vdn-host-device", "DEL", "u1"), &conf));
    bench.assert_home("after DEL");
    let notices: Vec<_> = asked.try_iter().collect();
    assert!(notices[0].contains("/cni/attached") && notices[1].contains("/cni/detached"));
    let status = bench.call(&bench.verb("vdn-host-device", "STATUS", "s"), &conf);
    assert_eq!(code(&status), 50);
}

#[test]
fn as_ipam_for_others_it_hands_on_what_was_prepared_and_queues_the_release() {
    let bench = Bench::new();
    let conf = bench.conf(json!({}));
    let add = bench.verb("vdn-ipam", "ADD", "u1");
    assert_eq!(
        code(&bench.call(&add, &conf)),
        11,
        "nothing prepared, nobody to ask"
    );
    bench.prepare("u1", "shared");
    let result = good(&bench.call(&add, &conf));
    assert_eq!(result["ips"][0]["address"], "10.20.0.11/24");
    assert!(result.get("interfaces").is_none() && result["ips"][0].get("interface").is_none());
    let check = bench.conf(json!({"prevResult": result}));
    good(&bench.call(&bench.verb("vdn-ipam", "CHECK", "u1"), &check));
    let del = bench.verb("vdn-ipam", "DEL", "u1");
    good(&bench.call(&del, &conf));
    assert_eq!(bench.files("releases").len(), 1);
    good(&bench.call(&del, &conf));
    good(&bench.call(&add, &conf));
    assert!(bench.files("releases").is_empty(), "it is used again");
    let mut unknown = bench.verb("vdn-ipam", "DEL", "u9");
    unknown.netns = None;
    good(&bench.call(&unknown, &conf));
}
