//! The file's schema and its migration, by the program as it is typed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn config_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config")
}
fn dtnctl(root: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dtnctl"));
    command.arg("--root").arg(root).args(words);
    command.output().unwrap()
}
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
fn schema() -> String {
    let printed = dtnctl(Path::new("/"), &["config", "schema"]);
    assert!(printed.status.success(), "{printed:?}");
    text(&printed.stdout)
}
/// Every TOML file of a folder of test data, with its name; what is no TOML is left out.
fn data(folder: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(config_dir().join("testdata").join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        if let Ok(table) = text.trim_start_matches('\u{feff}').parse::<toml::Table>() {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            found.push((name, serde_json::to_value(table).unwrap()));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() > 3, "{folder}");
    found
}

#[test]
fn the_schema_in_the_tree_is_the_one_that_is_printed() {
    let file = config_dir().join("appliance.schema.json");
    let printed = schema();
    if std::env::var_os("DTN_UPDATE").is_some() {
        fs::write(&file, &printed).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(kept, printed, "write it anew: dtnctl config schema");
}

/// What an independent reader of JSON Schema (python3-jsonschema) says of each value: nothing, or its
/// first fault. `None` where there is none.
fn validated(schema: &str, values: &[Value]) -> Option<Vec<String>> {
    const READER: &str = "import json, sys\n\
        from jsonschema import Draft202012Validator as V\n\
        schema, values = json.load(sys.stdin)\n\
        V.check_schema(schema)\n\
        first = lambda v: next((e.json_path + ': ' + e.message for e in V(schema).iter_errors(v)), '')\n\
        json.dump([first(v) for v in values], sys.stdout)";
    let there = Command::new("python3")
        .args(["-c", "import jsonschema"])
        .output();
    if !there.is_ok_and(|ran| ran.status.success()) {
        return None;
    }
    let schema: Value = serde_json::from_str(schema).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("asked.json");
    fs::write(&file, serde_json::json!([schema, values]).to_string()).unwrap();
    let mut reader = Command::new("python3");
    reader
        .args(["-c", READER])
        .stdin(fs::File::open(&file).unwrap());
    let ran = reader.output().unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    Some(serde_json::from_slice(&ran.stdout).unwrap())
}

#[test]
fn the_schema_takes_what_is_good_and_refuses_what_it_can_of_the_bad() {
    let reference = fs::read_to_string(config_dir().join("appliance.toml")).unwrap();
    let reference = serde_json::to_value(reference.parse::<toml::Table>().unwrap()).unwrap();
    let mut good = vec![("the reference".to_owned(), reference)];
    for folder in ["dtnd/good", "vdnd/good"] {
        good.extend(data(folder));
    }
    let mut bad = Vec::new();
    for folder in ["dtnd/bad", "vdnd/bad"] {
        let of = data(folder).into_iter();
        bad.extend(of.map(|(name, value)| (format!("{folder}/{name}"), value)));
    }
    let all: Vec<Value> = good.iter().chain(&bad).map(|one| one.1.clone()).collect();
    let Some(said) = validated(&schema(), &all) else {
        println!("skipped: needs python3-jsonschema");
        if let Ok(file) = std::env::var("DTN_SKIPS") {
            use std::io::Write;
            let mut file = fs::File::options().append(true).open(file).unwrap();
            writeln!(file, "dtnctl the schema: needs python3-jsonschema").unwrap();
        }
        return;
    };
    let (of_good, of_bad) = said.split_at(good.len());
    for ((name, _), fault) in good.iter().zip(of_good) {
        assert_eq!(fault, "", "{name}");
    }
    // what only the daemons can tell: what two fields say together, and what a value means
    let taken: Vec<&str> = bad
        .iter()
        .zip(of_bad)
        .filter(|(_, fault)| fault.is_empty())
        .map(|((name, _), _)| name.as_str())
        .collect();
    insta::assert_snapshot!("bad_that_the_schema_takes", taken.join("\n"));
}

const DTND: &str = "# the host of our hall\nversion = 1\n\n[host]\nname = \"dtn1\" # as on its label\n\n\
                    # the left port\n[[nic]]\nname = \"data0\"\nclass = \"dedicated\"\n";
const VDND: &str = "# our domain\nversion = 1 # of the format\nfabric = { kind = \"edge\" }\n[domain]\n\
                    name = \"daejeon\"\n[listen]\naddress = \"192.0.2.10:8443\"\n[addresses]\n\
                    ipv4 = \"10.20.0.0/16\"\n";

fn before(both: bool) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/dtn");
    fs::create_dir_all(folder.join("dtnd.toml.d")).unwrap();
    fs::write(folder.join("dtnd.toml"), DTND).unwrap();
    fs::write(
        folder.join("dtnd.toml.d/10-site.toml"),
        "# ours\n[tuning]\nrtt = \"20ms\"\n",
    )
    .unwrap();
    if both {
        fs::write(folder.join("vdnd.toml"), VDND).unwrap();
    }
    root
}
/// Every file below a folder with what is in it.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::read_to_string(&path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn two_files_become_one_with_their_comments_and_again_changes_nothing() {
    let root = before(true);
    let folder = root.path().join("etc/dtn");
    let ran = dtnctl(root.path(), &["config", "migrate"]);
    assert!(ran.status.success(), "{ran:?}");
    let one = fs::read_to_string(folder.join("appliance.toml")).unwrap();
    for words in [
        "# the host of our hall",
        "# as on its label",
        "# the left port",
        "# our domain",
    ] {
        assert!(one.contains(words), "{one}");
    }
    assert_eq!(one.matches("version = 1").count(), 1, "{one}");
    assert!(folder.join("appliance.d/dtnd-10-site.toml").exists());
    let checked = dtnctl(root.path(), &["config", "check", "--strict"]);
    assert!(checked.status.success(), "{checked:?}");
    let config = dtnd::config::load(&folder.join("appliance.toml")).unwrap();
    assert_eq!(config.config.rtt.millis(), 20);

    let all = files(&folder);
    let again = dtnctl(root.path(), &["config", "migrate"]);
    assert!(again.status.success(), "{again:?}");
    assert!(text(&again.stderr).contains("is read no more"));
    assert_eq!(files(&folder), all);
    // without the old ones there is nothing to do, and with none at all nothing to do it with
    for old in ["dtnd.toml", "vdnd.toml"] {
        fs::remove_file(folder.join(old)).unwrap();
    }
    assert!(dtnctl(root.path(), &["config", "migrate"]).status.success());
    fs::remove_file(folder.join("appliance.toml")).unwrap();
    assert_eq!(
        dtnctl(root.path(), &["config", "migrate"]).status.code(),
        Some(1)
    );
}

#[test]
fn what_is_there_already_is_not_written_over_and_what_is_wrong_not_carried_over() {
    let root = before(false);
    let folder = root.path().join("etc/dtn");
    let own = "version = 1\n[host]\nname = \"other\"\n";
    fs::write(folder.join("appliance.toml"), own).unwrap();
    let all = files(&folder);
    let ran = dtnctl(root.path(), &["config", "migrate"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(text(&ran.stderr).contains("says something else"), "{ran:?}");
    assert_eq!(files(&folder), all);

    fs::remove_file(folder.join("appliance.toml")).unwrap();
    fs::write(folder.join("dtnd.toml"), "version = 1\n[hots]\n").unwrap();
    let ran = dtnctl(root.path(), &["config", "migrate"]);
    assert_eq!(ran.status.code(), Some(78), "{ran:?}");
    assert!(text(&ran.stdout).contains("did you mean host?"), "{ran:?}");
    assert!(!folder.join("appliance.toml").exists());
    assert!(!folder.join("appliance.d").exists());
}

#[test]
fn a_host_with_the_files_of_before_is_told_how_to_go_on() {
    let root = before(false);
    let ran = dtnctl(root.path(), &["config", "check"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        text(&ran.stderr).contains("dtnctl config migrate"),
        "{ran:?}"
    );
}

#[test]
fn differences_from_the_defaults_need_no_daemon() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("etc/dtn");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("appliance.toml"),
        format!("{DTND}[data]\ndir = \"/srv/dtn\"\n[tuning]\nrtt = \"20ms\"\n"),
    )
    .unwrap();
    let ran = dtnctl(root.path(), &["config", "diff", "--defaults"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    insta::assert_snapshot!("differences_from_the_defaults", text(&ran.stdout));
    let ran = dtnctl(root.path(), &["config", "diff"]);
    assert_eq!(ran.status.code(), Some(69), "{ran:?}");
}
