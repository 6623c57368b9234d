//! The installer as an admin calls it, on a root that is a plain folder: what it refuses, what it shows,
//! and what it never touches.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dtn-install");

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(os_release: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Self { dir };
        for (path, text) in [
            ("root/etc/os-release", os_release),
            ("root/etc/hostname", "dtn7\n"),
            ("root/etc/passwd", "root:x:0:0::/:/bin/sh\n"),
            ("root/etc/group", "root:x:0:\n"),
            ("release/sbin/dtnd", "one"),
            ("release/libexec/dtn-install", "one"),
            (
                "release/units/dtnd.service",
                "[Install]\nWantedBy=multi-user.target\n",
            ),
        ] {
            bench.put(path, text);
        }
        fs::create_dir_all(bench.root().join("var/lib")).unwrap();
        bench.list("0.1.0");
        bench
    }
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
    fn put(&self, path: &str, text: &str) {
        let file = self.dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }
    fn list(&self, version: &str) {
        let folder = self.dir.path().join("release");
        let files: serde_json::Map<String, serde_json::Value> =
            ["sbin/dtnd", "libexec/dtn-install", "units/dtnd.service"]
                .iter()
                .map(|path| {
                    let bytes = fs::read(folder.join(path)).unwrap();
                    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
                    let digest: String =
                        digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
                    ((*path).to_owned(), digest.into())
                })
                .collect();
        let list = serde_json::json!({
            "format": 1, "version": version, "machine": std::env::consts::ARCH, "files": files,
        });
        fs::write(folder.join("release.json"), list.to_string()).unwrap();
    }
    fn call(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new(PROGRAM)
            .args(words)
            .arg("--root")
            .arg(self.root())
            .output()
            .unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code().unwrap(), text)
    }
    fn install(&self, more: &[&str]) -> (i32, String) {
        let release = self.dir.path().join("release");
        let mut words = vec!["install", "--release", release.to_str().unwrap()];
        words.extend(more);
        self.call(&words)
    }
}

fn count(folder: &Path) -> usize {
    let mut found = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found += 1;
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    found
}

const DEBIAN: &str = "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian 13\"\n";

#[test]
fn a_distribution_that_is_not_known_is_refused_and_nothing_is_changed() {
    let bench = Bench::new("ID=arch\nPRETTY_NAME=\"Arch Linux\"\n");
    let before = count(&bench.root());
    let (code, text) = bench.install(&["--yes"]);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("Arch Linux") && text.contains("Debian 12 or 13"),
        "{text}"
    );
    assert_eq!(count(&bench.root()), before);
}

#[test]
fn wrong_usage_is_2_and_silence_is_no_consent() {
    let bench = Bench::new(DEBIAN);
    let before = count(&bench.root());
    for words in [
        &["install"][..],
        &["install", "--release"],
        &["remove"],
        &[],
    ] {
        assert_eq!(bench.call(words).0, 2, "{words:?}");
    }
    assert_eq!(bench.install(&["--nic", "data0=fast"]).0, 2);
    assert_eq!(bench.install(&["--nic", "data0", "--no-nics"]).0, 2);
    let (code, text) = bench.install(&[]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("give --yes"), "{text}");
    assert_eq!(count(&bench.root()), before);
}

#[test]
fn a_dry_run_shows_every_change_and_makes_none() {
    let bench = Bench::new(DEBIAN);
    let before = count(&bench.root());
    let (code, text) = bench.install(&["--dry-run"]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "/usr/sbin/dtnd",
        "/etc/dtn/appliance.toml",
        "name = \"dtn7\"",
        "Nothing was changed",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(count(&bench.root()), before);
}

#[test]
fn the_admins_configuration_is_never_written_again_and_a_second_call_changes_nothing() {
    let bench = Bench::new(DEBIAN);
    assert_eq!(bench.install(&["--yes"]).0, 0);
    assert!(
        bench
            .read("etc/dtn/appliance.toml")
            .contains("name = \"dtn7\"")
    );
    let own =
        "version = 1\n[host]\nname = \"mine\"\n[[nic]]\nname = \"data0\"\nclass = \"dedicated\"\n";
    bench.put("root/etc/dtn/appliance.toml", own);
    let (code, text) = bench.install(&["--yes", "--name", "other"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("nothing has to be changed"), "{text}");
    assert_eq!(bench.read("etc/dtn/appliance.toml"), own);
    // what was taken from the boot stays so, and a changed program is put in anew
    let link = "etc/systemd/system/multi-user.target.wants/dtnd.service";
    fs::remove_file(bench.root().join(link)).unwrap();
    bench.put("release/sbin/dtnd", "two");
    bench.list("0.2.0");
    let (code, text) = bench.install(&["--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("0.1.0 is installed and will be brought to 0.2.0"),
        "{text}"
    );
    assert_eq!(bench.read("usr/sbin/dtnd"), "two");
    assert!(!bench.root().join(link).exists());
    assert_eq!(bench.read("etc/dtn/appliance.toml"), own);
}

#[test]
fn configuration_and_state_stay_when_that_is_asked_for() {
    let bench = Bench::new(DEBIAN);
    assert_eq!(bench.install(&["--yes"]).0, 0);
    bench.put("root/var/lib/dtn/identity/key", "secret");
    let own = bench.read("etc/dtn/appliance.toml");
    let (code, text) = bench.call(&["uninstall", "--yes", "--keep-state"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(bench.read("etc/dtn/appliance.toml"), own);
    assert_eq!(bench.read("var/lib/dtn/identity/key"), "secret");
    assert!(!bench.root().join("usr/sbin/dtnd").exists());
    assert!(!bench.root().join("var/lib/dtn/install").exists());
    // a second one has nothing to do
    let (code, text) = bench.call(&["uninstall", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("Nothing is installed"), "{text}");
}

#[test]
fn the_list_of_added_packages_is_there_until_the_journal_has_it() {
    let bench = Bench::new(DEBIAN);
    bench.put("added", "a-package-that-nobody-has\n");
    let list = bench.dir.path().join("added");
    let words = ["--added-packages", list.to_str().unwrap()];
    let (code, text) = bench.install(&[&words[..], &["--dry-run"]].concat());
    assert_eq!(code, 0, "{text}");
    assert!(list.exists());
    let (code, text) = bench.install(&[&words[..], &["--yes"]].concat());
    assert_eq!(code, 0, "{text}");
    assert!(!list.exists());
}

#[test]
fn a_configuration_that_cannot_be_read_is_no_hindrance_to_its_uninstallation() {
    let bench = Bench::new(DEBIAN);
    let before = count(&bench.root());
    assert_eq!(bench.install(&["--yes"]).0, 0);
    bench.put("root/etc/dtn/appliance.toml", "[host\n");
    let (code, text) = bench.install(&["--yes"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("appliance.toml"), "{text}");
    let (code, text) = bench.call(&["uninstall", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(count(&bench.root()), before);
}

#[test]
fn a_daemon_that_the_admin_enabled_is_not_left_enabled() {
    let bench = Bench::new(DEBIAN);
    let units = bench.root().join("etc/systemd/system");
    fs::create_dir_all(units.join("rescue.target.wants")).unwrap();
    let link = |path: &str, target: &str| {
        fs::create_dir_all(units.join(path).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, units.join(path)).unwrap();
    };
    link(
        "rescue.target.wants/other.service",
        "/usr/lib/systemd/system/other.service",
    );
    let before = count(&bench.root());
    assert_eq!(bench.install(&["--yes"]).0, 0);
    let unit = "/lib/systemd/system/dtnd.service";
    link("rescue.target.wants/dtnd.service", unit);
    link("other.target.requires/dtnd.service", unit);
    link("dtn.service", "/usr/lib/systemd/system/dtnd.service");
    let (code, text) = bench.call(&["uninstall", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(count(&bench.root()), before);
    assert!(units.join("rescue.target.wants/other.service").is_symlink());
}

#[test]
fn the_installer_stays_until_all_else_is_taken_back() {
    let bench = Bench::new(DEBIAN);
    assert_eq!(bench.install(&["--yes"]).0, 0);
    // what is neither file, folder nor link is not for us to remove
    let program = bench.root().join("usr/sbin/dtnd");
    fs::remove_file(&program).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(&program).unwrap();
    let (code, text) = bench.call(&["uninstall", "--yes"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("usr/sbin/dtnd"), "{text}");
    assert_eq!(bench.read("usr/libexec/dtn/dtn-install"), "one");
    drop(socket);
    fs::remove_file(&program).unwrap();
    let (code, text) = bench.call(&["uninstall", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(!bench.root().join("usr").exists());
}

#[test]
fn a_release_that_was_changed_is_refused() {
    let bench = Bench::new(DEBIAN);
    let before = count(&bench.root());
    bench.put("release/sbin/dtnd", "onf");
    let (code, text) = bench.install(&["--yes"]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("sbin/dtnd is not what the list says"),
        "{text}"
    );
    assert_eq!(count(&bench.root()), before);
}

#[test]
fn one_installer_at_a_time() {
    let bench = Bench::new(DEBIAN);
    let folder = fs::File::open(bench.root()).unwrap();
    let lock = nix::fcntl::Flock::lock(folder, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let (code, text) = bench.install(&["--yes"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another dtn-install"), "{text}");
    drop(lock);
    assert_eq!(bench.install(&["--yes"]).0, 0);
}
