//! Whole transfers: the real program, and where it is installed the real XRootD on a loopback
//! address. Without XRootD the test says so as a skip that the suite counts.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use dtn_mover::{manifest, names};
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const MOVER: &str = env!("CARGO_BIN_EXE_dtn-mover");
/// The user of the pod, so that the test meets the pod's rights.
const UID: u32 = 1094;

/// A server that ends with the test, and the folders of both ends.
struct Site {
    dir: tempfile::TempDir,
    server: Child,
    port: u16,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The reason why there can be no server here.
fn missing() -> Option<String> {
    for tool in ["xrootd", "xrdcp", "xrdfs"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(tool).is_file());
        if !found {
            return Some(format!(
                "{tool} is not installed (Debian: xrootd-server, xrootd-client)"
            ));
        }
    }
    (!nix::unistd::geteuid().is_root())
        .then(|| "not root, and xrootd has to be started as another user".to_owned())
}

impl Site {
    fn start() -> Option<Self> {
        if let Some(reason) = missing() {
            println!("skipped: {reason}");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("dtn-mover-")
            .tempdir()
            .unwrap();
        for folder in ["data/incoming", "adm", "state"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        // any 64-bit number and 32 bytes: the form that xrdsssadmin writes
        let key = format!(
            "0 u:dtn g:dtn n:dtn N:1 c:1 e:0 f:0 k:{}\n",
            "5a".repeat(32)
        );
        fs::write(dir.path().join("sss.keytab"), key).unwrap();
        fs::set_permissions(
            dir.path().join("sss.keytab"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        fs::write(dir.path().join("authdb"), "u dtn /incoming a\n").unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let here = dir.path().display();
        let config = format!(
            "all.role server\nxrd.port {port}\nxrd.network nodnr\noss.localroot {here}/data\n\
             all.export /incoming\nall.adminpath {here}/adm\nall.pidpath {here}/adm\n\
             xrootd.seclib libXrdSec.so\nsec.protocol sss -s {here}/sss.keytab\n\
             sec.protbind * only sss\nofs.authorize 1\nacc.authdb {here}/authdb\n"
        );
        fs::write(dir.path().join("xrootd.cfg"), config).unwrap();
        own(dir.path());
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let server = Command::new("xrootd")
            .args(["-n", "dtn-mover-test", "-c"])
            .arg(dir.path().join("xrootd.cfg"))
            .current_dir(dir.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .uid(UID)
            .gid(UID)
            .spawn()
            .unwrap();
        let site = Self { dir, server, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while site
            .tool("xrdfs", &[&site.url(""), "ls", "/incoming"])
            .status
            .code()
            != Some(0)
        {
            let log = || fs::read_to_string(site.dir.path().join("log")).unwrap();
            assert!(
                Instant::now() < deadline,
                "xrootd does not answer:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn url(&self, path: &str) -> String {
        format!("root://127.0.0.1:{}/{path}", self.port)
    }
    fn as_pod(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("XrdSecPROTOCOL", "sss")
            .env("XrdSecSSSKT", self.path("sss.keytab"))
            .env("XRD_CONNECTIONWINDOW", "2")
            .env("XRD_CONNECTIONRETRY", "1")
            .uid(UID)
            .gid(UID);
        command
    }
    fn tool(&self, program: &str, args: &[&str]) -> Output {
        self.as_pod(program, args).output().unwrap()
    }
    fn send(&self, from: &Path, id: &str, more: &[&str]) -> Command {
        let (to, state) = (
            self.url(&format!("/incoming/{id}")),
            self.path("state").join(id),
        );
        let mut args = vec![
            "send",
            "--from",
            from.to_str().unwrap(),
            "--to",
            &to,
            "--state",
            state.to_str().unwrap(),
        ];
        args.extend(more);
        let mut command = self.as_pod(MOVER, &args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
    fn receive(&self, id: &str) -> Command {
        let (incoming, into) = (
            self.path("data/incoming").join(id),
            self.path("data/received").join(id),
        );
        fs::create_dir_all(into.parent().unwrap()).unwrap();
        // that folder alone: a chown of what has arrived would take setuid bits away
        chown(into.parent().unwrap(), Some(UID), Some(UID)).unwrap();
        let args = [
            "receive",
            "--incoming",
            incoming.to_str().unwrap(),
            "--into",
            into.to_str().unwrap(),
            "--idle",
            "30",
        ];
        let mut command = self.as_pod(MOVER, &args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
    fn same(&self, from: &Path, id: &str) {
        let (a, b) = (
            manifest::of(from, 2).unwrap(),
            manifest::of(&self.path("data/received").join(id), 2).unwrap(),
        );
        assert_eq!(manifest::compare(&a, &b), []);
        let time = |entries: &[dtn_mover::tree::Entry]| -> Vec<_> {
            entries
                .iter()
                .filter(|e| !matches!(e.kind, dtn_mover::tree::Kind::Symlink(_)))
                .map(|e| e.mtime_ns)
                .collect()
        };
        assert_eq!(time(&a), time(&b));
    }
}

fn own(path: &Path) {
    chown(path, Some(UID), Some(UID)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for item in fs::read_dir(path).unwrap() {
            let item = item.unwrap().path();
            if item.is_symlink() {
                std::os::unix::fs::lchown(item, Some(UID), Some(UID)).unwrap();
            } else {
                own(&item);
            }
        }
    }
}

fn success(output: &Output) -> Vec<serde_json::Value> {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{err}\n{out}");
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every name that has ever hurt a transfer tool.
fn odd_tree(root: &Path) {
    let odd: [&[u8]; 14] = [
        b" leading and trailing ",
        b"new\nline",
        b"-dash",
        b"--checkpoint=1",
        b"quote'\"`$(x)",
        b"hash#",
        b"question?",
        b"per%20cent",
        b"back\\slash",
        b"latin-\xe9",
        b"\xff\xfe",
        b"star*[a]{b}",
        "한글 파일".as_bytes(),
        b"...",
    ];
    for (index, name) in odd.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        fs::create_dir_all(root.join(name).join(name)).unwrap();
        fs::write(root.join(name).join("f"), format!("small {index}")).unwrap();
        fs::write(
            root.join(name).join(name).join(name),
            vec![index as u8; 2 << 20],
        )
        .unwrap();
        symlink(name, root.join(name).join("link")).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("..", root.join("up")).unwrap();
    fs::create_dir(root.join("hollow")).unwrap();
    for (name, mode) in [
        ("ro", 0o444),
        ("x", 0o755),
        ("suid", 0o4711),
        ("private", 0o600),
    ] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir_all(root.join("sealed/in")).unwrap();
    fs::write(root.join("sealed/in/f"), b"x").unwrap();
    own(root);
    // chown takes the setuid bit away
    fs::set_permissions(root.join("suid"), fs::Permissions::from_mode(0o4711)).unwrap();
    for folder in ["sealed/in", "sealed"] {
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o555)).unwrap();
    }
}

#[test]
fn an_odd_tree_arrives_as_it_was_and_twice_is_once() {
    let Some(site) = Site::start() else { return };
    let tree = site.path("tree");
    odd_tree(&tree);
    let receiver = site.receive("odd").spawn().unwrap();
    let more = ["--large-mib", "1", "--bundle-mib", "1", "--streams", "3"];
    let events = success(&site.send(&tree, "odd", &more).output().unwrap());
    let plan = events.iter().find(|e| e["event"] == "plan").unwrap();
    assert_eq!(
        (plan["large_files"].as_u64(), plan["resumed"].as_bool()),
        (Some(14), Some(false))
    );
    let received = success(&receiver.wait_with_output().unwrap());
    assert_eq!(
        received.iter().filter(|e| e["event"] == "large").count(),
        14
    );
    site.same(&tree, "odd");
    // both commands again: nothing is sent, and done is said at once
    let events = success(&site.send(&tree, "odd", &more).output().unwrap());
    assert_eq!(events.last().unwrap()["sent_bytes"], 0);
    let received = success(&site.receive("odd").output().unwrap());
    assert_eq!(received.last().unwrap()["already_done"], true);
    site.same(&tree, "odd");
    // a real tar can read a bundle of the same tree: the format is no private one
    let entries = dtn_mover::tree::scan(&tree).unwrap();
    let places: Vec<_> = (0..entries.len())
        .filter(|i| (1..100).contains(&entries[*i].size()))
        .collect();
    let mut tar = Command::new("tar")
        .args(["-tf", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    dtn_mover::bundle::pack(&tree, &entries, &places, tar.stdin.take().unwrap(), |_| {}).unwrap();
    let listed = tar.wait_with_output().unwrap();
    assert!(listed.status.success());
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(
        listed
            .lines()
            .map(|l| l.parse::<usize>().unwrap())
            .collect::<Vec<_>>(),
        places
    );
}

#[test]
fn a_transfer_without_the_key_is_refused_at_once_and_by_name() {
    let Some(site) = Site::start() else { return };
    let tree = site.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), b"x").unwrap();
    own(&tree);
    let output = site
        .send(&tree, "anon", &[])
        .env_remove("XrdSecSSSKT")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("Auth failed"), "{error}");
    assert!(!site.path("data/incoming/anon").exists());
    let anonymous = Command::new("xrdfs")
        .args([&site.url(""), "ls", "/incoming"])
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    assert!(!anonymous.status.success(), "reading without the key");
    // outside the incoming folder the key opens nothing
    let output = site.tool("xrdfs", &[&site.url(""), "mkdir", "/other"]);
    assert!(!output.status.success());
}

/// Kills both movers in the middle of the large file, and checks that the rest of the path, not
/// all of it, is sent again.
#[test]
fn killed_movers_go_on_where_they_were() {
    let Some(site) = Site::start() else { return };
    let tree = site.path("tree");
    fs::create_dir(&tree).unwrap();
    let mut big = fs::File::create(tree.join("big ?#%\n")).unwrap();
    let size: u64 = 320 << 20;
    for block in 0..size >> 20 {
        big.write_all(&vec![block as u8; 1 << 20]).unwrap();
    }
    for index in 0..200 {
        fs::write(tree.join(format!("small-{index}")), vec![b'x'; index * 10]).unwrap();
    }
    own(&tree);
    let mut receiver = site.receive("kill").spawn().unwrap();
    let mut sender = site.send(&tree, "kill", &[]).spawn().unwrap();
    // the receiver tells how much of the large file is there
    let up = site.path("data/incoming/kill/2.up");
    let deadline = Instant::now() + Duration::from_secs(60);
    let here = || fs::metadata(&up).map_or(0, |meta| meta.len());
    while here() < 64 << 20 {
        assert!(Instant::now() < deadline, "the large file does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    sender.kill().unwrap();
    receiver.kill().unwrap();
    sender.wait().unwrap();
    receiver.wait().unwrap();
    // the tools died with the mover: once the server has written what it had, nothing comes any more
    let mut before = here();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        match here() {
            now if now == before => break,
            now => before = now,
        }
        assert!(Instant::now() < deadline, "the killed mover's tool goes on");
    }
    let finished_already = before >= size;
    let receiver = site.receive("kill").spawn().unwrap();
    let events = success(&site.send(&tree, "kill", &[]).output().unwrap());
    assert_eq!(
        events.iter().find(|e| e["event"] == "plan").unwrap()["resumed"],
        true
    );
    assert!(
        finished_already || events.iter().any(|e| e["event"] == "resume"),
        "{events:?}"
    );
    let sent = events.last().unwrap()["sent_bytes"].as_u64().unwrap();
    assert!(
        sent <= size - before + dtn_mover::xrd::UNSURE,
        "sent {sent} of {size}, {before} were there"
    );
    success(&receiver.wait_with_output().unwrap());
    site.same(&tree, "kill");
}

#[test]
fn a_destination_in_use_is_left_alone() {
    let Some(site) = Site::start() else { return };
    let tree = site.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), b"x").unwrap();
    let theirs = site.path("data/received/used");
    fs::create_dir_all(&theirs).unwrap();
    fs::write(theirs.join("precious"), b"y").unwrap();
    own(&tree);
    success(&site.send(&tree, "used", &[]).output().unwrap());
    let output = site.receive("used").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(error.contains("is not empty"), "{error}");
    assert_eq!(fs::read(theirs.join("precious")).unwrap(), b"y");
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
}

#[test]
fn the_command_line_keeps_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let mover = |args: &[&OsStr]| Command::new(MOVER).args(args).output().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for tree in [&a, &b] {
        fs::create_dir(tree).unwrap();
        fs::write(tree.join(OsStr::from_bytes(b"\xff\n")), b"1").unwrap();
    }
    let manifest = |tree: &Path| {
        let output = mover(&["manifest".as_ref(), tree.as_os_str()]);
        assert!(output.status.success());
        let path = tree.with_extension("manifest");
        fs::write(&path, output.stdout).unwrap();
        path
    };
    let (first, second) = (manifest(&a), manifest(&b));
    let compare = |a: &Path, b: &Path| mover(&["compare".as_ref(), a.as_os_str(), b.as_os_str()]);
    assert_eq!(compare(&first, &second).status.code(), Some(0));
    fs::write(b.join(OsStr::from_bytes(b"\xff\n")), b"2").unwrap();
    let output = compare(&first, &manifest(&b));
    assert_eq!(output.status.code(), Some(1));
    let difference: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        names::unescape(difference["path"].as_str().unwrap()).unwrap(),
        b"\xff\n"
    );
    assert_eq!(difference["what"], "content");
    assert_eq!(
        compare(&first, &dir.path().join("none")).status.code(),
        Some(3)
    );
    assert_eq!(
        mover(&["send".as_ref(), "--to".as_ref(), "nonsense".as_ref()])
            .status
            .code(),
        Some(2)
    );
    let output = mover(&["drop-cache".as_ref(), a.as_os_str()]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        r#"{"files":1,"bytes":1}"#
    );
    let output = mover(&[
        "watch".as_ref(),
        first.as_os_str(),
        "--size".as_ref(),
        "99999999".as_ref(),
        "--deadline".as_ref(),
        "0".as_ref(),
    ]);
    assert_eq!(output.status.code(), Some(1));
}

/// A killed mover takes its tools along.
#[test]
fn a_tool_ends_with_its_parent() {
    let mut parent = Command::new("sh")
        .args(["-c", "\"$0\" with-parent $$ sleep 600 & echo $!; wait"])
        .arg(MOVER)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let status = PathBuf::from(format!("/proc/{}/comm", line.trim()));
    let deadline = Instant::now() + Duration::from_secs(20);
    let running = |name: &str| fs::read_to_string(&status).is_ok_and(|comm| comm.trim() == name);
    while !running("sleep") {
        assert!(Instant::now() < deadline, "the tool does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    let alive = || {
        // a zombie that nobody has reaped yet has ended too
        fs::read_to_string(status.with_file_name("stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while alive() {
        assert!(Instant::now() < deadline, "the tool lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
}
