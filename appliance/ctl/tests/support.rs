//! The support bundle of a host whose daemons are dead, with secrets planted in every place that can
//! hold one: none of them is in any member, and what is needed is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{
    collections::BTreeMap, fs, io::Read, os::unix::fs::PermissionsExt, path::Path, process::Command,
};

/// A secret that is in no other place of the machine.
fn secret(place: &str) -> String {
    format!("Planted-{place}-7Qz4Xw9")
}

fn put(root: &Path, file: &str, text: &str) {
    let file = root.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// A private key in PEM whose body is told apart.
fn pem(place: &str) -> (String, Vec<String>) {
    let lines: Vec<String> = (0..3)
        .map(|n| format!("MIGHplanted{place}line{n}AAAAbbbb1234"))
        .collect();
    let body = lines.join("\n");
    (
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
        lines,
    )
}

/// Plants secrets and returns all of them.
fn plant(root: &Path) -> Vec<String> {
    let mut planted = Vec::new();
    let mut new = |place: &str| {
        let text = secret(place);
        planted.push(text.clone());
        text
    };
    let config = format!(
        "version = 1\n[host]\nname = \"dtn1\"\n[data]\ndir = \"/srv/dtn\"\n# token = \"{}\"\n[operator]\npassword = \"{}\"\n\
         token-file = \"/etc/dtn/operator.token\"\ncredentials-file = \"/opt/elsewhere/onos\"\nurl = \"https://onos:{}@192.0.2.1\"\n",
        new("comment"),
        new("config"),
        new("userinfo"),
    );
    for file in [
        "etc/dtn/appliance.toml",
        "etc/dtn/dtnd.toml",
        "etc/dtn/vdnd.toml.d/10-x.toml",
    ] {
        put(root, file, &config);
    }
    put(
        root,
        "etc/dtn/operator.token",
        &format!("{}\n", new("token-file")),
    );
    put(
        root,
        "opt/elsewhere/onos",
        &format!("karaf:{}\n", new("credentials-file")),
    );
    let kubeconfig = format!(
        "users:\n- name: a\n  user:\n    token: {}\n    client-key-data: {}\n",
        new("kube-token"),
        new("kube-key"),
    );
    put(root, "etc/dtn/kubeconfig", &kubeconfig);
    let invitation = new("invitation");
    let (host_key, host_lines) = pem("Identity");
    let identity = serde_json::json!({
        "version": 1, "host": "dtn1", "domain": "daejeon", "url": "https://192.0.2.1:7443",
        "ca_pem": "", "ca_pin": "", "certificate_pem": "", "key_pem": host_key,
    });
    put(
        root,
        "var/lib/dtn/identity/identity.json",
        &identity.to_string(),
    );
    let pending = serde_json::json!({"invitation": {"secret": invitation}, "key_pem": host_key});
    put(
        root,
        "var/lib/dtn/identity/pending.json",
        &pending.to_string(),
    );
    let (ca_key, ca_lines) = pem("Authority");
    put(root, "var/lib/dtn/vdn/keys/ca.key", &ca_key);
    // a pod's record with what an operator passed to it, and the same in a plugin's
    let pod = serde_json::json!({
        "key": "pod-1", "values": {"password": new("value")},
        "containers": [{"env": [{"name": "MODE", "value": new("environment")}],
            "args": ["--token", new("argument"), format!("--secret={}", new("flag"))]}],
    });
    put(root, "var/lib/dtn/pods/pod-1.json", &pod.to_string());
    put(
        root,
        "var/lib/dtn/attachments/torn.json",
        &format!("{{\"token\": \"{}\"", new("torn")),
    );
    // logs repeat what they should not: known secrets, and unknown ones by their form
    let log = format!(
        "level=info msg=\"joining with dtn-invitation.{}\"\nAuthorization: Bearer {}\nkey is {}\n\
         {ca_key}\npassword={}\nthe token {} was refused\nslice lhc is up\n",
        new("word"),
        new("bearer"),
        host_lines[0],
        new("pair"),
        secret("token-file"),
    );
    put(root, "var/log/dtn/dtnd.log", &log);
    planted.extend(host_lines);
    planted.extend(ca_lines);
    planted
}

#[test]
fn no_planted_secret_is_in_any_member() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let mut planted = plant(&root);
    let environment = secret("variable");
    planted.push(environment.clone());
    // a variable's value that stands in a log without its name
    put(
        &root,
        "var/log/dtn/other.log",
        &format!("started with {environment}\n"),
    );
    let file = dir.path().join("bundle.tar.gz");
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_dtnctl"))
            .arg("--root")
            .arg(&root)
            .args(["support-bundle", "--output"])
            .arg(&file)
            .env("DTN_API_TOKEN", &environment)
            .output()
            .unwrap()
    };
    let ran = run();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let packed = flate2::read::GzDecoder::new(fs::File::open(&file).unwrap());
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(packed).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let (_, name) = name.split_once('/').unwrap();
        members.insert(name.to_owned(), text);
    }
    let shown = String::from_utf8_lossy(&ran.stdout).into_owned();
    for secret in &planted {
        assert!(!shown.contains(secret), "{secret} on stdout");
        for (name, text) in &members {
            assert!(
                !name.contains(secret) && !text.contains(secret),
                "{secret} in {name}:\n{text}"
            );
        }
    }
    // what was searched was there
    for name in [
        "LIST.txt",
        "doctor.json",
        "config/etc/dtn/appliance.toml",
        "config/etc/dtn/vdnd.toml.d/10-x.toml",
        "records/pods/pod-1.json",
        "records/attachments/torn.json",
        "journal/dtnd.log",
        "journal/other.log",
        "system/settings.txt",
        "versions/dtnctl.txt",
    ] {
        assert!(
            members.contains_key(name),
            "{name} is not in {:?}",
            members.keys()
        );
    }
    assert!(members["journal/dtnd.log"].contains("slice lhc is up"));
    assert!(
        members["config/etc/dtn/appliance.toml"]
            .contains("token-file = \"/etc/dtn/operator.token\"")
    );
    assert!(members["records/pods/pod-1.json"].contains("MODE"));
    let list = &members["LIST.txt"];
    for left in [
        "answers of dtnd",
        "answers of vdnd",
        "identity, keys of the domain",
    ] {
        assert!(list.contains(left), "{list}");
    }
    let report: serde_json::Value = serde_json::from_str(&members["doctor.json"]).unwrap();
    assert!(
        report["findings"]
            .as_array()
            .is_some_and(|found| !found.is_empty())
    );
    // what is there is not written over
    let again = run();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already"));
}
