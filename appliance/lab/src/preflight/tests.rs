use super::*;
use dtn_api::{nic::NicClass, slice::Class};

fn options(state: &Path) -> Options {
    Options {
        state: state.into(),
        engine: EngineKind::Podman,
        kubernetes: "/nowhere".into(),
        kubeconfigs: Vec::new(),
        fabric: Fabric::Edge,
        onos: onos::OnosOptions::default(),
        wan_at_most: false,
        wan: "1Gbit".parse().unwrap(),
        rtt: "10ms".parse().unwrap(),
        mtu: 9000,
        nics: 1,
        nic: NicClass::Dedicated,
        rate: None,
        min_rate: None,
        class: Class::Guaranteed,
        data: "/usr/share/doc".into(),
        large: "2GiB".parse().unwrap(),
        both: false,
        interrupt: false,
        kill_supervisor: false,
        until: None,
        keep: false,
        report: None,
        svg: None,
        bin_dir: "/nowhere".into(),
        share: "/nowhere".into(),
        image: "/nowhere/image.tar".into(),
    }
}

fn good() -> Facts {
    Facts {
        root: true,
        missing_programs: Vec::new(),
        missing_files: Vec::new(),
        kernel_lacks: Vec::new(),
        hierarchies: 1,
        free_disk: Some(100 << 30),
        image: 100 << 20,
        free_memory: Some(8 << 30),
        foreign: Vec::new(),
        onos: Vec::new(),
        kubernetes: Vec::new(),
        state: None,
        up: false,
        tree: Tree::Files {
            files: 1000,
            bytes: 100 << 20,
        },
        missing_folders: Vec::new(),
    }
}

#[test]
fn a_machine_that_has_everything_is_ready() {
    assert_eq!(
        problems(&options(Path::new("/s")), &good()),
        Vec::<String>::new()
    );
}

#[test]
fn all_problems_are_told_at_once_each_with_a_remedy() {
    let facts = Facts {
        root: false,
        missing_programs: vec![("podman".into(), "podman".into())],
        missing_files: vec!["/nowhere/vdnd".into()],
        kernel_lacks: vec!["veth links".into()],
        hierarchies: 0,
        free_disk: Some(1 << 20),
        free_memory: Some(1 << 20),
        foreign: vec!["a network namespace busan".into()],
        onos: vec!["no ONOS core".into()],
        kubernetes: vec!["there is no release of Kubernetes".into()],
        state: Some("--state".into()),
        up: true,
        tree: Tree::Empty,
        missing_folders: vec!["/nowhere".into()],
        ..good()
    };
    let mut wish = options(Path::new("/s"));
    (wish.mtu, wish.nics, wish.rtt) = (100, 0, "1h".parse().unwrap());
    let told = problems(&wish, &facts);
    assert_eq!(told.len(), 17, "{told:#?}");
    for part in [
        "not root",
        "Debian's package podman",
        "/nowhere/vdnd",
        "no veth",
        "no release of Kubernetes",
        "free, and both copies",
        "is empty",
        "already up",
        "busan",
        "--mtu 100",
        "--nics 0",
        "--rtt 1h",
    ] {
        assert!(
            told.iter().any(|text| text.contains(part)),
            "{part:?} is missing in {told:#?}"
        );
    }
}

#[test]
fn clusters_need_more_memory_and_no_podman() {
    let mut wish = options(Path::new("/s"));
    let two_gigabytes = Facts {
        free_memory: Some(2 << 30),
        ..good()
    };
    assert_eq!(problems(&wish, &two_gigabytes), Vec::<String>::new());
    wish.engine = EngineKind::Kubernetes;
    let told = problems(&wish, &two_gigabytes);
    assert!(
        told.len() == 1 && told[0].contains("of memory are free"),
        "{told:?}"
    );
    assert!(PROGRAMS.iter().all(|(program, _)| *program != "podman"));
}

#[test]
fn room_is_for_both_copies_in_both_directions() {
    let mut wish = options(Path::new("/s"));
    let one = room(&wish, &good());
    assert!(one > 2 * (2 << 30) + (100 << 20));
    wish.both = true;
    assert!(room(&wish, &good()) > one + 2 * (2 << 30));
}

#[test]
fn trees_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(walk(&dir.path().join("none")), Tree::Missing);
    assert_eq!(walk(dir.path()), Tree::Empty);
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::write(dir.path().join("deep/file"), "12345").unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.path().join("dangling")).unwrap();
    assert_eq!(walk(dir.path()), Tree::Files { files: 1, bytes: 5 });
    assert_eq!(walk(&dir.path().join("deep/file")), Tree::NoFolder);
}

#[test]
fn a_folder_with_other_files_is_never_taken() {
    let dir = tempfile::Builder::new()
        .prefix("lab")
        .tempdir_in("/tmp")
        .unwrap();
    let place = Place::new(dir.path());
    assert_eq!(wrong_state(&place), None);
    fs::write(dir.path().join("thesis.tex"), "").unwrap();
    assert!(wrong_state(&place).unwrap().contains("not a lab's"));
    fs::write(place.mark(), "").unwrap();
    assert_eq!(wrong_state(&place), None);
    for bad in [
        "relative",
        "/run/lab",
        "/tmp/a-very-long-name-for-a-folder-that-is-to-hold-unix-sockets-below",
    ] {
        assert!(wrong_state(&Place::new(Path::new(bad))).is_some(), "{bad}");
    }
    assert!(free_disk(&dir.path().join("not/yet")).is_some());
}

#[test]
fn a_lab_that_is_up_is_seen() {
    let dir = tempfile::Builder::new()
        .prefix("lab")
        .tempdir_in("/tmp")
        .unwrap();
    let (place, wish) = (Place::new(dir.path()), options(dir.path()));
    let held = janitor::lock(&place).unwrap();
    assert!(look(&wish).up);
    drop(held);
    assert!(!look(&wish).up);
}
