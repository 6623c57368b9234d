//! Cut off at every step, on a root that is a plain folder: an installation, an upgrade and an
//! uninstallation are each killed, and let fail, at every point that they reach. What comes after the
//! next call is the state before or the state after, to the byte, and never one between.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::MetadataExt, fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dtn-install");

/// A host's tree, with what an installation meets there: accounts, tools, an admin's own files in the
/// places that are ours, a link where a folder is expected.
fn bare(root: &Path) {
    let put = |path: &str, text: &str, mode: u32| {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    put(
        "etc/os-release",
        "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n",
        0o644,
    );
    put("etc/hostname", "dtn7\n", 0o644);
    put(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/sh\n",
        0o644,
    );
    put(
        "etc/group",
        "root:x:0:\nadm:x:4:alice\nalice:x:1000:\n",
        0o644,
    );
    put("etc/shadow", "root:*:1::::::\nalice:!:1::::::\n", 0o640);
    put("etc/gshadow", "root:*::\nadm:*::alice\nalice:!::\n", 0o640);
    put("usr/lib/systemd/systemd-networkd", "", 0o755);
    put("etc/NetworkManager/NetworkManager.conf", "[main]\n", 0o644);
    put("opt/cni/bin/vdn-ipam", "of the admin", 0o700);
    put("srv/dtn/keep", "a result", 0o600);
    fs::create_dir_all(root.join("var/lib")).unwrap();
    std::os::unix::fs::symlink("/somewhere", root.join("etc/link")).unwrap();
}

/// A release of small files that stand for programs.
fn release(folder: &Path, version: &str) {
    let unit = format!("[Unit]\nDescription={version}\n[Install]\nWantedBy=multi-user.target\n");
    let mut files: Vec<(String, String)> = vec![
        ("bin/dtnctl", version),
        ("sbin/dtnd", version),
        ("libexec/dtn-install", version),
        ("cni/vdn-ipam", version),
        ("units/dtn.sysusers.conf", "g dtn - -\nu dtn-vdn - \"Controller\" /var/lib/dtn/vdn -\nm dtn-vdn dtn\n"),
        ("units/dtn.tmpfiles.conf", "d /var/lib/dtn 0750 root dtn -\nd /var/lib/dtn/vdn 0700 dtn-vdn dtn-vdn -\nd /run/dtn 0755 root root -\nd /srv/dtn 0755 root root -\n"),
        ("workloads/xrootd/values.toml", version),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .collect();
    files.push(("units/dtnd.service".into(), unit));
    // each has a file that the other has not
    files.push((format!("doc/only-in-{version}"), version.to_owned()));
    let mut list = BTreeMap::new();
    for (path, text) in files {
        let file = folder.join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, &text).unwrap();
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let digest: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        list.insert(path, digest);
    }
    let list = serde_json::json!({
        "format": 1, "version": version, "machine": std::env::consts::ARCH, "files": list,
    });
    fs::write(folder.join("release.json"), list.to_string()).unwrap();
}

/// Everything below a root: kind, content, mode, owner, attributes.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if meta.is_symlink() {
                format!("link to {}", fs::read_link(&path).unwrap().display())
            } else {
                format!(
                    "file {:?}",
                    String::from_utf8_lossy(&fs::read(&path).unwrap())
                )
            };
            let attributes: Vec<_> = xattr::list(&path).unwrap().collect();
            let told = format!(
                "{what} {:o} {}:{} {attributes:?}",
                meta.mode(),
                meta.uid(),
                meta.gid()
            );
            found.insert(path.strip_prefix(root).unwrap().to_owned(), told);
        }
    }
    found
}

/// The same without the journal, whose content is of its time.
fn without_journal(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = tree(root);
    found.retain(|path, _| !path.starts_with("var/lib/dtn/install"));
    found
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        // in memory: some hundred calls flush every file that they write
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        release(&dir.path().join("one"), "one");
        release(&dir.path().join("two"), "two");
        bare(&dir.path().join("bare"));
        Self { dir }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// A copy of a tree, with all that belongs to it.
    fn copy(&self, from: &str, to: &str) -> PathBuf {
        let target = self.at(to);
        let _ = fs::remove_dir_all(&target);
        let done = Command::new("cp")
            .arg("-a")
            .args([self.at(from), target.clone()])
            .status()
            .unwrap();
        assert!(done.success());
        target
    }
    fn call(&self, verb: &[&str], root: &Path, failpoint: &str) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .args(verb)
            .arg("--root")
            .arg(root)
            .env("DTN_FAILPOINT", failpoint);
        command.output().unwrap()
    }
    fn install(&self, release: &str, root: &Path, failpoint: &str) -> Output {
        let folder = self.at(release);
        let words = [
            "install",
            "--yes",
            "--tune",
            "--release",
            folder.to_str().unwrap(),
        ];
        self.call(&words, root, failpoint)
    }
    fn good(output: &Output) -> String {
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{text}");
        text
    }
    /// Which call is cut off.
    fn cut(&self, what: &str, root: &Path, failpoint: &str) -> Output {
        match what {
            "install" => self.install("one", root, failpoint),
            "upgrade" => self.install("two", root, failpoint),
            _ => self.call(&["uninstall", "--yes"], root, failpoint),
        }
    }
}

/// Kills, or lets fail, at every point of a call, and mends by each of the calls that may come next.
fn at_every_point(what: &str, start: &str) {
    let bench = Bench::new();
    let bare = tree(&bench.at("bare"));
    let one = bench.copy("bare", "installed");
    Bench::good(&bench.install("one", &one, ""));
    let one = without_journal(&one);
    let two = bench.copy("installed", "upgraded");
    Bench::good(&bench.install("two", &two, ""));
    let two = without_journal(&two);
    let (before, after) = match what {
        "install" => (&bare, &one),
        "upgrade" => (&one, &two),
        _ => (&two, &bare),
    };

    let count = bench.at("count");
    let root = bench.copy(start, "counted");
    Bench::good(&bench.cut(what, &root, &format!("count:{}", count.display())));
    let points: usize = fs::read_to_string(&count).unwrap().parse().unwrap();
    assert!(points > 20, "{what} has only {points} points");
    for number in 1..=points {
        for how in ["kill", "error"] {
            // a step that fails is taken back as one that is killed is: not every one of the long calls
            if how == "error" && what != "upgrade" && number % 4 != 0 && number + 8 < points {
                continue;
            }
            let why = format!("{what}, {how} at point {number} of {points}");
            let root = bench.copy(start, "cut");
            let output = bench.cut(what, &root, &format!("{how}:{number}"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            match how {
                "kill" => assert_eq!(output.status.signal(), Some(9), "{why}: {said}"),
                _ => {
                    // it is before or after at once, or says that it is between
                    let now = without_journal(&root);
                    match output.status.code() {
                        Some(0) => assert_eq!(now, *after, "{why}"),
                        Some(1) if what != "uninstall" => assert_eq!(now, *before, "{why}: {said}"),
                        Some(1) => assert!(now == *before || now == *after, "{why}: {said}"),
                        Some(4) => assert!(said.contains("goes on where it was"), "{why}: {said}"),
                        other => panic!("{why}: {other:?}: {said}"),
                    }
                }
            }
            let cut = bench.copy("cut", "again");
            // the same call again ends in the state after
            Bench::good(&bench.cut(what, &cut, ""));
            assert_eq!(without_journal(&cut), *after, "{why}, then again");
            // and whatever came before, an uninstallation ends in the bare host, the journal included
            let cut = bench.copy("cut", "again");
            Bench::good(&bench.call(&["uninstall", "--yes"], &cut, ""));
            assert_eq!(tree(&cut), bare, "{why}, then uninstalled");
        }
    }
}

#[test]
fn an_installation_is_whole_or_not_there() {
    at_every_point("install", "bare");
}

#[test]
fn an_upgrade_is_the_new_version_or_the_old() {
    at_every_point("upgrade", "installed");
}

#[test]
fn an_uninstallation_is_completed_by_the_next_call() {
    at_every_point("uninstall", "upgraded");
}

/// Killed while it mends what was killed: each call may be cut off as well.
#[test]
fn mending_may_be_cut_off_too() {
    let bench = Bench::new();
    let bare = tree(&bench.at("bare"));
    let count = bench.at("count");
    let root = bench.copy("bare", "counted");
    Bench::good(&bench.install("one", &root, &format!("count:{}", count.display())));
    let points: usize = fs::read_to_string(&count).unwrap().parse().unwrap();
    let root = bench.copy("bare", "cut");
    // an installation that was nearly done, whose mending is killed at each of its points
    bench.install("one", &root, &format!("kill:{}", points - 8));
    for number in 1..400 {
        let cut = bench.copy("cut", "mended");
        let output = bench.call(&["uninstall", "--yes"], &cut, &format!("kill:{number}"));
        if output.status.success() {
            assert!(number > 20, "mending has only {number} points");
            return;
        }
        Bench::good(&bench.call(&["uninstall", "--yes"], &cut, ""));
        assert_eq!(tree(&cut), bare, "mending killed at point {number}");
    }
    panic!("mending never ended");
}

/// Daemons run before the last word of an installation, and start at boot: one that is cut off there may
/// have served for long, and what it knows is not thrown away.
#[test]
fn a_first_installation_that_was_used_since_is_not_taken_back() {
    let bench = Bench::new();
    let count = bench.at("count");
    let root = bench.copy("bare", "counted");
    Bench::good(&bench.install("one", &root, &format!("count:{}", count.display())));
    let points: usize = fs::read_to_string(&count).unwrap().parse().unwrap();
    let root = bench.copy("bare", "cut");
    bench.install("one", &root, &format!("kill:{}", points - 8));
    fs::create_dir_all(root.join("var/lib/dtn/identity")).unwrap();
    fs::write(root.join("var/lib/dtn/identity/key"), "secret").unwrap();
    let key = |root: &Path| fs::read_to_string(root.join("var/lib/dtn/identity/key")).unwrap();

    let cut = bench.copy("cut", "again");
    let text = Bench::good(&bench.install("one", &cut, ""));
    assert!(text.contains("identity/key"), "{text}");
    assert_eq!(key(&cut), "secret");
    assert!(cut.join("var/lib/dtn/install/journal/base.json").exists());

    let cut = bench.copy("cut", "again");
    Bench::good(&bench.call(&["uninstall", "--yes", "--keep-state"], &cut, ""));
    assert_eq!(key(&cut), "secret");
    assert!(!cut.join("usr/sbin/dtnd").exists());

    let cut = bench.copy("cut", "again");
    Bench::good(&bench.call(&["uninstall", "--yes"], &cut, ""));
    assert_eq!(tree(&cut), tree(&bench.at("bare")));
}

/// What an uninstallation left with --keep-state, the last one takes back, whatever was cut off between.
#[test]
fn state_that_was_kept_goes_with_the_last_uninstallation() {
    let bench = Bench::new();
    let bare = tree(&bench.at("bare"));
    let root = bench.copy("bare", "installed");
    Bench::good(&bench.install("one", &root, ""));
    let key = "var/lib/dtn/vdn/key";
    fs::write(root.join(key), "secret").unwrap();
    let end = |why: &str| {
        let root = bench.at("kept");
        assert!(root.join(key).exists(), "{why}");
        Bench::good(&bench.install("one", &root, ""));
        assert!(root.join(key).exists(), "{why}");
        let text = Bench::good(&bench.call(&["uninstall", "--yes"], &root, ""));
        assert!(
            text.contains("in /etc/dtn and /var/lib/dtn is lost"),
            "{why}: {text}"
        );
        assert_eq!(tree(&root), bare, "{why}");
    };
    let keep = ["uninstall", "--yes", "--keep-state"];
    for number in 1..400 {
        let root = bench.copy("installed", "kept");
        let output = bench.call(&keep, &root, &format!("kill:{number}"));
        end(&format!("left, killed at {number}"));
        if output.status.success() {
            break;
        }
    }
    let root = bench.copy("installed", "left");
    Bench::good(&bench.call(&keep, &root, ""));
    for number in 1..400 {
        let root = bench.copy("left", "kept");
        let output = bench.install("one", &root, &format!("kill:{number}"));
        end(&format!("installed again, killed at {number}"));
        if output.status.success() {
            return;
        }
    }
    panic!("the installation never ended");
}

/// What is refused afterwards is no hindrance to mending what was cut off.
#[test]
fn what_was_cut_off_is_mended_before_anything_is_looked_at() {
    let bench = Bench::new();
    let root = bench.copy("bare", "cut");
    bench.install("one", &root, "kill:60");
    assert!(root.join("usr/libexec/dtn/dtn-install").exists());
    let output = bench.install("no-release", &root, "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(tree(&root), tree(&bench.at("bare")));
}
