//! The process: its exit codes, its sockets, how it ends, and what it does with junk and without
//! room on its disk.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod site;

use dtn_api::{Problem, client::Client, domain::Domain, problem::Kind, slice::Slice};
use serde_json::json;
use site::{NEAR, Site, path, refusal, window};
use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::Command,
    time::Duration,
};

fn spec(name: &str) -> serde_json::Value {
    json!({
        "name": name, "commit": true,
        "qos": {"class": "guaranteed", "rate_bps": 1_000_000},
        "members": [{"host": format!("{NEAR}-none")}, {"border_link": "wan"}],
        "schedule": window(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_it_is_asked_to() {
    let mut site = Site::new("ends", "daejeon", "busan", None).await;
    let socket = site.root().join("run/dtn/vdnd.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // a second one on the same state is refused, and the first goes on
    let second = site.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    site.admin.get::<String>(&path("/readyz")).await.unwrap();
    let term = Command::new("kill")
        .arg(site.pid().to_string())
        .status()
        .unwrap();
    assert!(term.success());
    assert_eq!(site.ended().await, Some(0));
    site.start(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_ends_nothing() {
    let (mut near, _far) = site::federate("no-log", None, None).await;
    let heard = async |near: &Site| -> Option<jiff::Timestamp> {
        let peer: Domain = near.admin.get(&path("/domains/busan")).await.unwrap();
        peer.heard_at
    };
    let before = heard(&near).await;
    near.kill();
    let plain = near.command();
    let mut deaf = Command::new("sh");
    deaf.args(["-c", "exec \"$@\" 2>/dev/full", "sh"])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("DTN_LOG", "debug");
    near.spawn(deaf).await;
    // its clock asks the other domain, which is logged at this level
    site::eventually("the other domain is heard again", async || {
        heard(&near).await > before
    })
    .await;
    near.admin.get::<String>(&path("/readyz")).await.unwrap();
}

#[test]
fn a_configuration_that_is_not_valid_is_told_whole() {
    let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/testdata/vdnd");
    // as root would have written it: a checkout can be anybody's
    let copy = tempfile::tempdir().unwrap();
    let data = copy.path();
    for folder in ["good", "bad"] {
        std::fs::create_dir(data.join(folder)).unwrap();
        for entry in std::fs::read_dir(tree.join(folder)).unwrap() {
            let from = entry.unwrap().path();
            let text = std::fs::read(&from).unwrap();
            std::fs::write(data.join(folder).join(from.file_name().unwrap()), text).unwrap();
        }
    }
    let check = |file: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdnd"));
        command
            .arg("--check-config")
            .arg("--config")
            .arg(file)
            .output()
            .unwrap()
    };
    let files = |folder: &str| {
        let entries = std::fs::read_dir(data.join(folder)).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|e| e == "toml"));
        assert!(!files.is_empty());
        files
    };
    for file in files("good") {
        let answer = check(&file);
        assert_eq!(answer.status.code(), Some(0), "{file:?}: {answer:?}");
    }
    for file in files("bad") {
        let answer = check(&file);
        assert_eq!(answer.status.code(), Some(78), "{file:?}: {answer:?}");
        // the words beside it, one line each, with the path of the tree taken out
        let said = String::from_utf8(answer.stderr).unwrap();
        let said = said.replace(&format!("{}/", data.join("bad").display()), "");
        let name = file.with_extension("problems");
        let golden = tree.join("bad").join(name.file_name().unwrap());
        if std::env::var_os("DTN_UPDATE").is_some() {
            std::fs::write(&golden, &said).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&golden).unwrap(),
            said,
            "{golden:?}"
        );
    }
    assert_eq!(
        check(std::path::Path::new("/no/such/file")).status.code(),
        Some(78)
    );
    let usage = Command::new(env!("CARGO_BIN_EXE_vdnd"))
        .arg("--nonsense")
        .output()
        .unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

/// What came back on the unix socket for these bytes.
fn raw(site: &Site, request: &[u8]) -> String {
    let mut socket = UnixStream::connect(site.root().join("run/dtn/vdnd.sock")).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // it may answer and close before everything was sent
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_answered_with_a_problem_and_harms_nobody() {
    let site = Site::new("junk", "daejeon", "busan", None).await;
    let call = |head: &str, body: &str| {
        let length = body.len();
        raw(
            &site,
            format!(
                "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\
                 idempotency-key: k\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    };
    let deep = "[".repeat(100_000);
    let giant = format!("\"{}\"", "x".repeat(2 << 20));
    for (head, body, status) in [
        ("POST /vdn/v1/slices", "", "400"),
        ("POST /vdn/v1/slices", "{", "400"),
        ("POST /vdn/v1/slices", "[1,2]", "400"),
        (
            "POST /vdn/v1/slices",
            r#"{"name": "a", "name": "b"}"#,
            "400",
        ),
        ("POST /vdn/v1/slices", r#"{"surprise": 1}"#, "400"),
        ("POST /vdn/v1/slices", "\u{0}\u{1}", "400"),
        ("POST /vdn/v1/slices", &deep, "400"),
        ("POST /vdn/v1/slices", &giant, "4"),
        ("POST /vdn/v1/slices?dry_run=perhaps", "{}", "400"),
        ("GET /vdn/v1/slices?limit=many", "", "400"),
        ("GET /vdn/v1/slices/%00", "", "400"),
        ("GET /vdn/v1/slices/..%2f..%2fetc", "", "400"),
        ("PUT /vdn/v1/hosts/nobody", "{}", "400"),
        ("BREW /vdn/v1/slices", "", "405"),
        ("DELETE /vdn/v1/slices", "", "405"),
        ("GET /vdn/v2/slices", "", "404"),
        ("GET /", "", "404"),
        (
            "POST /vdn/v1/enrolments",
            r#"{"secret": "x", "csr_pem": "y"}"#,
            "401",
        ),
    ] {
        let answer = call(head, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{head} {:.60}: {answer}",
            body
        );
        let json = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        let problem: Problem = serde_json::from_str(json)
            .unwrap_or_else(|e| panic!("{head} {:.60}: {e}: {answer}", body));
        assert!(
            problem.kind.starts_with(dtn_api::problem::TYPE_PREFIX),
            "{answer}"
        );
        assert!(
            problem.request_id.is_some() && problem.instance.is_some(),
            "{answer}"
        );
    }
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET\r\n\r\n",
        &[0xff; 70_000],
    ] {
        raw(&site, garbage);
    }
    site.admin.get::<String>(&path("/readyz")).await.unwrap();
    let none: dtn_api::slice::List<Slice> = site.admin.get(&path("/slices")).await.unwrap();
    assert!(none.items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_is_a_contract_and_counts() {
    let site = Site::new("served", "daejeon", "busan", None).await;
    let document: serde_json::Value = site.admin.get(&path("/openapi.json")).await.unwrap();
    assert!(document["paths"].as_object().unwrap().len() > 20);
    let metrics = raw(
        &site,
        b"GET /vdn/v1/metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert!(
        metrics.contains("vdnd_things{kind=\"hosts\"} 0"),
        "{metrics}"
    );
    assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_old_is_not_acted_on() {
    let site = Site::new("versions", "daejeon", "busan", None).await;
    site.declare(NEAR).await;
    let key = "one";
    let answer = site
        .admin
        .call::<_, Slice>(
            http::Method::POST,
            &path("/slices"),
            &[("idempotency-key", key)],
            Some(&spec("a")),
        )
        .await
        .unwrap();
    assert_eq!(answer.status, 201);
    let id = answer.body.id;
    let tag = format!("\"v{}\"", answer.body.version);
    assert_eq!(answer.headers["etag"], tag.as_str());
    assert_eq!(
        answer.headers["location"],
        path(&format!("/slices/{id}")).as_str()
    );
    let at = path(&format!("/slices/{id}"));
    let none = site.admin.delete(&at, None).await;
    assert!(refusal(none).is(Kind::PreconditionRequired));
    let old = site.admin.delete(&at, Some(answer.body.version + 7)).await;
    assert!(refusal(old).is(Kind::VersionMismatch));
    site.admin
        .delete(&at, Some(answer.body.version))
        .await
        .unwrap();
    // dry run: the would-be slice, and nothing is there
    let dry: Slice = site
        .admin
        .post(&path("/slices?dry_run=true"), &spec("b"))
        .await
        .unwrap();
    assert_eq!(dry.spec.name.as_str(), "b");
    assert!(
        refusal(
            site.admin
                .get::<Slice>(&path(&format!("/slices/{}", dry.id)))
                .await
        )
        .is(Kind::NotFound)
    );
    // pages
    for n in 0..5 {
        let name = format!("p{n}");
        site.admin
            .post_once::<_, Slice>(&path("/slices"), &name, &spec(&name))
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    let mut next = path("/slices?limit=2");
    loop {
        let page: dtn_api::slice::List<Slice> = site.admin.get(&next).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|slice| slice.id));
        match page.next_page_token {
            Some(token) => next = path(&format!("/slices?limit=2&page_token={token}")),
            None => break,
        }
    }
    assert_eq!(seen.len(), 6);
    assert!(seen.is_sorted());
}

/// In a mount namespace of its own, the state on a small tmpfs: full, then with room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_loses_nothing() {
    let mut probe = Command::new("unshare");
    probe.args([
        "--mount",
        "--propagation",
        "private",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/mnt",
    ]);
    if !probe.output().is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: a mount namespace with a tmpfs cannot be made here");
        return;
    }
    let mut site = Site::new("full-disk", "daejeon", "busan", None).await;
    site.kill();
    let state = site.root().join("var/lib/dtn/vdn");
    let real = site.command();
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "sh", "-c"]);
    inside
        .arg("mount -t tmpfs -o size=8m none \"$0\" && exec \"$@\"")
        .arg(&state);
    inside.arg(real.get_program()).args(real.get_args());
    site.spawn(inside).await;
    site.declare(NEAR).await;
    let ask = async |client: &Client, name: &str| {
        client
            .post_once::<_, Slice>(&path("/slices"), name, &spec(name))
            .await
    };
    let first = ask(&site.admin, "before").await.unwrap();
    // the mount is the process's own: it is seen through its root
    let filler = format!("/proc/{}/root{}/filler", site.pid(), state.display());
    let mut fill = std::fs::File::create(&filler).unwrap();
    while fill.write_all(&[0; 4096]).is_ok() {}
    drop(fill);
    let mut refused = 0;
    let mut booked = vec![first.id];
    for n in 0..400 {
        match ask(&site.admin, &format!("full-{n}")).await {
            Ok(slice) => booked.push(slice.id),
            Err(e) => {
                let problem = e.problem().unwrap_or_else(|| panic!("{e}")).clone();
                assert!(problem.status >= 500, "{problem:?}");
                refused += 1;
            }
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk was never full");
    // reading goes on, and what was refused is not there
    let list: dtn_api::slice::List<Slice> = site.admin.get(&path("/slices")).await.unwrap();
    let mut there: Vec<_> = list.items.iter().map(|slice| slice.id).collect();
    booked.sort();
    there.sort();
    assert_eq!(there, booked);
    std::fs::remove_file(&filler).unwrap();
    ask(&site.admin, "after").await.unwrap();
    let list: dtn_api::slice::List<Slice> = site.admin.get(&path("/slices")).await.unwrap();
    assert_eq!(list.items.len(), booked.len() + 1);
}
