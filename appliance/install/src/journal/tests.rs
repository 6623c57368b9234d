use super::*;
use crate::step::Holds;

fn path(name: &str, before: Image) -> Record {
    Record::Path {
        path: name.into(),
        before,
        holds: Holds::Steps,
    }
}
fn link(target: &str) -> Image {
    Image::Link {
        target: target.into(),
    }
}

#[test]
fn what_is_noted_is_read_again_and_a_torn_line_is_no_deed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.begin("1.0.0").unwrap();
    journal.note(path("/a", Image::Absent)).unwrap();
    journal.note(path("/b", link("/c"))).unwrap();
    let file = journal.file("run.jsonl");
    let mut out = OpenOptions::new().append(true).open(&file).unwrap();
    out.write_all(b"{\"of\":\"path\",\"pa").unwrap();
    let again = Journal::open(dir.path()).unwrap();
    let records = again.run.unwrap().records;
    assert_eq!(records, [path("/a", Image::Absent), path("/b", link("/c"))]);
}

#[test]
fn the_image_of_the_bare_host_outlives_every_upgrade() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    for (version, before) in [("1", "/bare"), ("2", "/one"), ("3", "/two")] {
        journal.begin(version).unwrap();
        journal.note(path("/a", link(before))).unwrap();
        journal.commit().unwrap();
    }
    let again = Journal::open(dir.path()).unwrap();
    let base = again.base.unwrap();
    assert_eq!(base.version, "3");
    assert_eq!(base.records, [path("/a", link("/bare"))]);
    assert_eq!(again.run, None);
}

#[test]
fn a_run_that_was_cut_off_after_its_merge_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.begin("1").unwrap();
    journal.note(path("/a", Image::Absent)).unwrap();
    let run = fs::read(journal.file("run.jsonl")).unwrap();
    journal.commit().unwrap();
    fs::write(journal.file("run.jsonl"), run).unwrap();
    let again = Journal::open(dir.path()).unwrap();
    assert_eq!(again.run, None);
    assert!(again.base.is_some());
    assert!(!again.file("run.jsonl").exists());
}

#[test]
fn a_newer_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.begin("1").unwrap();
    journal.commit().unwrap();
    let file = journal.file("base.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    let error = Journal::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("format 2"), "{error}");
}

#[test]
fn after_the_end_nothing_of_it_is_left() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("var/lib")).unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.begin("1").unwrap();
    journal.note(path("/a", Image::Absent)).unwrap();
    journal.commit().unwrap();
    journal.begin_removal(false, false).unwrap();
    journal.end_removal().unwrap();
    assert_eq!(fs::read_dir(dir.path().join("var/lib")).unwrap().count(), 0);
}

#[test]
fn a_base_that_is_as_it_was_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    journal.begin("1").unwrap();
    journal.commit().unwrap();
    let file = journal.file("base.json");
    // a write would replace it by another file
    let inode = |file: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(file).unwrap());
    let before = inode(&file);
    journal.begin("2").unwrap();
    journal.uncommit().unwrap();
    assert_eq!(inode(&file), before);
    let base = journal.base.clone();
    journal.commit().unwrap();
    journal.base = base.clone();
    journal.uncommit().unwrap();
    assert_eq!(Journal::open(dir.path()).unwrap().base, base);
}
