//! The pages under `docs/` and the READMEs hold what they say: every link to a file leads
//! somewhere, every `dtnctl` line is one that this program takes, every complete TOML block is valid.

use crate::cli::Cli;
use clap::Parser;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Vec<(PathBuf, String)> {
    let root = checkout();
    let readmes = [
        "README.md",
        "config/README.md",
        "images/README.md",
        "dtn-workloads/README.md",
        "dtn-workloads/xrootd/README.md",
        "dtn-workloads/iperf3/README.md",
    ];
    let mut files: Vec<PathBuf> = readmes.iter().map(|name| root.join(name)).collect();
    files.retain(|file| file.exists());
    for folder in ["docs", "docs/ko"] {
        let entries = fs::read_dir(root.join(folder)).expect("the folder of the pages");
        files.extend(
            entries
                .map(|entry| entry.expect("a page").path())
                .filter(|path| path.extension().is_some_and(|end| end == "md")),
        );
    }
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a page that can be read");
            (path, text)
        })
        .collect()
}

/// Fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<(bool, String)> = None;
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(opened)) => block = Some((opened.trim() == language, String::new())),
            (Some(_), Some(_)) => {
                found.extend(
                    block
                        .take()
                        .filter(|(wanted, _)| *wanted)
                        .map(|(_, text)| text),
                );
            }
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(block.is_none(), "a block is not closed");
    found
}

/// The anchor that a heading gets: lower case, blanks to hyphens, no punctuation.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' => Some(c),
            _ => None,
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut lost = Vec::new();
    for (page, text) in pages() {
        let folder = page.parent().expect("a page lies in a folder");
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if target.contains("://") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                folder.join(file)
            };
            let found = path.exists()
                && (part.is_empty()
                    || fs::read_to_string(&path).is_ok_and(|text| {
                        let headings = text.lines().filter(|line| line.starts_with('#'));
                        headings
                            .map(|line| anchor(line.trim_start_matches('#')))
                            .any(|heading| heading == part)
                    }));
            if !found {
                lost.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(
        lost.is_empty(),
        "links that lead nowhere:\n{}",
        lost.join("\n")
    );
}

/// Lines of `sh` blocks, and commands in back quotes.
fn commands(text: &str) -> Vec<String> {
    let fenced = blocks(text, "sh");
    let lines = fenced.iter().flat_map(|block| block.lines());
    let quoted = text.split('`').skip(1).step_by(2);
    lines
        .chain(quoted.filter(|code| code.starts_with("dtnctl ") && !code.contains('\n')))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_is_one_that_this_program_takes() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (page, text) in pages() {
        for line in commands(&text) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words
                .iter()
                .position(|word| *word == "dtnctl" || word.ends_with("/dtnctl"))
            else {
                continue;
            };
            seen += 1;
            // names of verbs alone, as `dtnctl slice reserve`, lack what they need: that is not what
            // is being looked at
            if let Err(error) = Cli::try_parse_from(&words[at..])
                && error.kind() != clap::error::ErrorKind::MissingRequiredArgument
            {
                wrong.push(format!("{}: {line}: {error}", page.display()));
            }
        }
    }
    assert!(
        seen > 20,
        "only {seen} commands were found: the pages are read wrongly"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_complete_configuration_is_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    for (page, text) in pages() {
        for block in blocks(&text, "toml") {
            let Some(name) = block
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# "))
            else {
                continue;
            };
            let file = folder.path().join(name);
            fs::write(&file, &block).expect("a file");
            let problems: Vec<String> = match name {
                "appliance.toml" => crate::config::every_problem(&file)
                    .expect("a file that can be read")
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                _ => panic!("{}: whose configuration is {name}?", page.display()),
            };
            assert!(problems.is_empty(), "{}: {problems:#?}", page.display());
            seen += 1;
        }
    }
    assert!(
        seen > 0,
        "no configuration was found: the pages are read wrongly"
    );
}

#[test]
fn the_exit_codes_of_the_admin_page_are_those_of_the_program() {
    let page = fs::read_to_string(checkout().join("docs/admin.md")).expect("the page");
    for (code, _) in crate::failure::EXIT_CODES {
        assert!(page.contains(&format!("| {code} |")), "exit code {code}");
    }
}
