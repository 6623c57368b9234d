//! `dtnctl config migrate`: the two files of before (`dtnd.toml`, `vdnd.toml`) become one
//! `appliance.toml`, with their comments, and their drop-ins become drop-ins of it. Nothing is written
//! over and nothing is taken away; what comes out says the same as what went in, or nothing comes out.

use super::parts;
use crate::{
    cli::Context,
    failure::{Done, Failure, Outcome},
};
use anyhow::Context as _;
use dtn_api::layered::{ConfigError, LARGEST, Sources};
use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The file of one daemon, before it was one for both.
struct Old {
    daemon: &'static str,
    file: PathBuf,
    text: String,
    /// Its drop-ins, with the name that each gets.
    drop_ins: Vec<(String, String)>,
}

pub(super) fn run(context: &Context) -> Outcome {
    let file = context.place.below(dtn_api::CONFIG_FILE);
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut old = Vec::new();
    for daemon in ["dtnd", "vdnd"] {
        old.extend(read(&folder, daemon)?);
    }
    if old.is_empty() {
        if file.exists() {
            return Ok(Done::text(format!(
                "{} is the configuration already\n",
                file.display()
            )));
        }
        return Err(Failure::because(format!(
            "there is nothing to migrate: neither dtnd.toml nor vdnd.toml in {}",
            folder.display()
        ))
        .or_next("copy the annotated reference to /etc/dtn/appliance.toml and edit it"));
    }
    for one in &old {
        refuse_what_is_wrong(one)?;
    }
    let text = joined(&old)?;
    let done = |what: &str| {
        let names: Vec<String> = old.iter().map(|o| o.file.display().to_string()).collect();
        Done::text(format!("{}: {what}\n", file.display())).next(format!(
            "{} is read no more: take it away once you have looked at {}",
            names.join(" and "),
            file.display()
        ))
    };
    if file.exists() {
        same(&old, &file).map_err(|why| {
            Failure::because(format!(
                "{} is there already and says something else: {why}",
                file.display()
            ))
            .or_next("put them together by hand; nothing was changed")
        })?;
        return Ok(done("says the same already"));
    }
    try_out(&old, &text)?;
    let drop_ins = Sources::new(&file).drop_ins();
    for (name, text) in old.iter().flat_map(|one| &one.drop_ins) {
        fs::create_dir_all(&drop_ins).with_context(|| format!("making {}", drop_ins.display()))?;
        write_new(&drop_ins.join(name), text)?;
    }
    // last: until it is there the daemons do not start with half of it
    write_new(&file, &text)?;
    Ok(done("written"))
}

/// A file of before with its drop-ins, where there is one.
fn read(folder: &Path, daemon: &'static str) -> Result<Option<Old>, Failure> {
    let file = folder.join(format!("{daemon}.toml"));
    if !file.exists() {
        return Ok(None);
    }
    let text = bounded(&file)?;
    let mut drop_ins = Vec::new();
    let from = Sources::new(&file).drop_ins();
    match fs::read_dir(&from) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.context("reading the drop-ins")?.path();
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or(".");
                if name.ends_with(".toml") && !name.starts_with('.') {
                    // with the daemon's name before it they keep their order and never meet
                    drop_ins.push((format!("{daemon}-{name}"), bounded(&path)?));
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let doing = format!("reading {}", from.display());
            return Err(anyhow::Error::new(error).context(doing).into());
        }
    }
    Ok(Some(Old {
        daemon,
        file,
        text,
        drop_ins,
    }))
}

fn bounded(file: &Path) -> Result<String, Failure> {
    let doing = || format!("reading {}", file.display());
    let size = fs::metadata(file).with_context(doing)?.len();
    if size > LARGEST {
        return Err(Failure::because(format!("{}: it is too large", doing())));
    }
    Ok(fs::read_to_string(file).with_context(doing)?)
}

fn refuse_what_is_wrong(old: &Old) -> Result<(), Failure> {
    let sources = Sources::new(&old.file);
    let part = match old.daemon {
        "dtnd" => parts::Part::Host,
        _ => parts::Part::Domain,
    };
    match part.values(&sources) {
        Ok(_) => Ok(()),
        Err(ConfigError::Invalid(problems)) => {
            let name = old.file.display().to_string();
            Err(super::check::refused(&problems, &name))
        }
        Err(other) => Err(parts::checking(&old.file, other)),
    }
}

/// One text of both. What stands before the first table goes before every table; the version, which
/// both have, is there once.
fn joined(old: &[Old]) -> Result<String, Failure> {
    let (mut top, mut tables) = (String::new(), String::new());
    for (n, one) in old.iter().enumerate() {
        let (first, rest) =
            split(&one.text, n > 0).with_context(|| format!("reading {}", one.file.display()))?;
        for (text, part) in [(&mut top, first), (&mut tables, rest)] {
            if !text.is_empty() && !part.trim().is_empty() {
                text.push_str(&format!("\n# --- of {}.toml\n\n", one.daemon));
            }
            text.push_str(&part);
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    Ok(top + &tables)
}

/// A text in two: up to the last line that sets something at the top, and the tables.
fn split(text: &str, without_version: bool) -> anyhow::Result<(String, String)> {
    let text = text.trim_start_matches('\u{feff}');
    let document = toml_edit::ImDocument::parse(text)?;
    let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |n| at + n + 1);
    let heads = document.iter().filter_map(|(_, item)| match item {
        toml_edit::Item::Table(table) if !table.is_dotted() => first_head(table),
        toml_edit::Item::ArrayOfTables(tables) => tables
            .iter()
            .filter_map(|t| t.span())
            .map(|s| s.start)
            .min(),
        _ => None,
    });
    let head = heads.min().unwrap_or(text.len());
    let ends = document.iter().filter_map(|(_, item)| last_end(item));
    let before = ends.filter(|end| *end <= head).max();
    let cut = before.map_or(0, line_end);
    let (mut first, rest) = (text[..cut].to_owned(), text[cut..].to_owned());
    if without_version && let Some((key, _)) = document.as_table().get_key_value("version") {
        let at = key.span().map_or(0, |span| span.start);
        let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
        first.replace_range(start..line_end(at), "");
    }
    Ok((first, rest))
}

/// Where what is set at the top ends: a value, or those of a dotted key.
fn last_end(item: &toml_edit::Item) -> Option<usize> {
    match item {
        toml_edit::Item::Value(value) => value.span().map(|span| span.end),
        toml_edit::Item::Table(table) if table.is_dotted() => {
            table.iter().filter_map(|(_, item)| last_end(item)).max()
        }
        _ => None,
    }
}

/// Where the first `[…]` of a table or of one below it stands.
fn first_head(table: &toml_edit::Table) -> Option<usize> {
    let below = table.iter().filter_map(|(_, item)| match item {
        toml_edit::Item::Table(table) => first_head(table),
        toml_edit::Item::ArrayOfTables(tables) => {
            let spans = tables.iter().filter_map(|one| one.span());
            spans.map(|span| span.start).min()
        }
        _ => None,
    });
    let own = table.span().map(|span| span.start);
    own.into_iter().chain(below).min()
}

/// Whether the new files say the same as the old ones; what they do not.
fn same(old: &[Old], new: &Path) -> Result<(), String> {
    let new = Sources::new(new);
    let differ = |daemon: &str| Err(format!("what {daemon} reads there is not what it read"));
    for one in old {
        let was = Sources::new(&one.file);
        let told = |error: ConfigError| error.to_string();
        match one.daemon {
            "dtnd" => {
                let was = dtnd::config::load_from(&was).map_err(told)?.config;
                if dtnd::config::load_from(&new).map_err(told)?.config != was {
                    return differ("dtnd");
                }
            }
            _ => {
                let was = vdnd::config::load_from(&was).map_err(told)?.config;
                if vdnd::config::load_from(&new).map_err(told)?.config != was {
                    return differ("vdnd");
                }
            }
        }
    }
    Ok(())
}

/// Reads what would be written, in a folder of its own, before anything is.
fn try_out(old: &[Old], text: &str) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("dtnctl-migrate-{}", uuid::Uuid::new_v4()));
    let tried = || -> anyhow::Result<Result<(), String>> {
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        let file = folder.join("appliance.toml");
        fs::write(&file, text)?;
        let drop_ins = Sources::new(&file).drop_ins();
        fs::create_dir(&drop_ins)?;
        for (name, text) in old.iter().flat_map(|one| &one.drop_ins) {
            fs::write(drop_ins.join(name), text)?;
        }
        Ok(same(old, &file))
    };
    let outcome = tried();
    let _ = fs::remove_dir_all(&folder);
    outcome
        .context("trying out what would be written")?
        .map_err(|why| {
            Failure::because(format!("the one file would not say the same: {why}"))
                .or_next("put them together by hand; nothing was changed")
        })
}

/// Writes a file that is not there yet, whole or not at all.
fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let doing = || format!("writing {}", file.display());
    let hidden = file.with_extension("toml.new");
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(anyhow::Error::new(error).context(doing()).into());
        }
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&hidden);
    let mut opened = opened.with_context(doing)?;
    opened.write_all(text.as_bytes()).with_context(doing)?;
    opened.sync_all().with_context(doing)?;
    // a link, unlike a rename, is refused where something is already
    let linked = match fs::hard_link(&hidden, file) {
        // of a run that was cut off: the same text is what was wanted
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && fs::read_to_string(file).is_ok_and(|there| there == text) =>
        {
            Ok(())
        }
        other => other,
    };
    let _ = fs::remove_file(&hidden);
    linked.with_context(doing)?;
    if let Some(folder) = file.parent() {
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.with_context(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_the_top_stays_at_the_top() {
        let old = |daemon, text: &str| Old {
            daemon,
            file: format!("{daemon}.toml").into(),
            text: text.into(),
            drop_ins: Vec::new(),
        };
        let text = joined(&[
            old(
                "dtnd",
                "# the host\nversion = 1\nhost.name = \"a\" # short\n\n# its NIC\n[[nic]]\nname = \"x\"",
            ),
            old(
                "vdnd",
                "# the domain\nversion = 1 # of it\nfabric = { kind = \"edge\" }\n# its name\n[domain]\nname = \"d\"\n",
            ),
        ])
        .unwrap();
        assert_eq!(
            text,
            "# the host\nversion = 1\nhost.name = \"a\" # short\n\n# --- of vdnd.toml\n\n\
             # the domain\nfabric = { kind = \"edge\" }\n\n# its NIC\n[[nic]]\nname = \"x\"\n\n\
             # --- of vdnd.toml\n\n# its name\n[domain]\nname = \"d\"\n"
        );
        assert!(text.parse::<toml::Table>().is_ok());
    }
}
