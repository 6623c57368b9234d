//! `vdn-chain install`: puts the plugin into the list of the cluster's own network, or takes it out.
//!
//! The list belongs to another project, and may be written anew by its agent: so this can be run at
//! any time and as often as one likes, changes one entry and nothing else, and replaces the file in
//! one step.

use super::NAME;
use crate::conflist;
use dtn_link::atomic_file;
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What a person is shown.
pub(super) const USAGE: &str = "vdn-chain install [--conflist-dir DIR | --file FILE] [--remove]\n  puts vdn-chain behind the \
     cluster's own network: the first list of plugins in DIR (/etc/cni/net.d), or FILE";

/// Where runtimes look for networks.
const USUAL: &str = "/etc/cni/net.d";
/// Longest list that is read.
const LONGEST: u64 = 4 << 20;

#[derive(Debug, PartialEq, Eq)]
struct Wish {
    list: Where,
    remove: bool,
}
#[derive(Debug, PartialEq, Eq)]
enum Where {
    First(PathBuf),
    File(PathBuf),
}

pub(super) fn main(words: &[OsString]) -> ExitCode {
    let wish = match read(words) {
        Ok(wish) => wish,
        Err(why) => {
            eprintln!("vdn-chain: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match install(&wish) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("vdn-chain: {why}");
            ExitCode::FAILURE
        }
    }
}

fn read(words: &[OsString]) -> Result<Wish, String> {
    let mut words = words.iter();
    if words.next().is_none_or(|word| word != "install") {
        return Err("the only command is install".to_owned());
    }
    let mut wish = Wish {
        list: Where::First(USUAL.into()),
        remove: false,
    };
    while let Some(word) = words.next() {
        let mut path = || {
            let next = words.next().map(PathBuf::from);
            next.ok_or_else(|| format!("{} needs a path", word.to_string_lossy()))
        };
        match word.to_str() {
            Some("--conflist-dir") => wish.list = Where::First(path()?),
            Some("--file") => wish.list = Where::File(path()?),
            Some("--remove") => wish.remove = true,
            _ => return Err(format!("{} is not known", word.to_string_lossy())),
        }
    }
    Ok(wish)
}

fn install(wish: &Wish) -> Result<String, String> {
    let file = match &wish.list {
        Where::File(file) => file.clone(),
        Where::First(folder) => first(folder)?,
    };
    let doing = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let bytes = atomic_file::read(&file, LONGEST).map_err(|e| e.to_string())?;
    let text = String::from_utf8(bytes.ok_or_else(|| doing(&"there is no such file"))?)
        .map_err(|e| doing(&e))?;
    let changed = match wish.remove {
        true => conflist::without(&text, NAME),
        false => conflist::with(&text, NAME),
    };
    let Some(changed) = changed.map_err(|e| doing(&e))? else {
        let said = if wish.remove {
            "is not in it"
        } else {
            "is in it already"
        };
        return Ok(doing(&format!("{NAME} {said}")));
    };
    let mode = fs::metadata(&file)
        .map_err(|e| doing(&e))?
        .permissions()
        .mode()
        & 0o777;
    atomic_file::write(&file, changed.as_bytes(), mode).map_err(|e| e.to_string())?;
    let said = if wish.remove {
        "was taken out of it"
    } else {
        "was put into it"
    };
    Ok(doing(&format!("{NAME} {said}")))
}

/// The network that runtimes take: the first file by name.
fn first(folder: &Path) -> Result<PathBuf, String> {
    let none = |why: &dyn std::fmt::Display| {
        format!(
            "{}: {why}: install the cluster's own network first, or name its list with --file",
            folder.display()
        )
    };
    let entries = fs::read_dir(folder).map_err(|e| none(&e))?;
    let is_network = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str());
        matches!(extension, Some("conflist" | "conf" | "json"))
    };
    let all = entries.flatten().map(|entry| entry.path());
    let first = all.filter(is_network).min();
    first.ok_or_else(|| none(&"there is no network in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_command_line_is_read_or_refused() {
        let wish = read(&words("install --conflist-dir /x --remove")).unwrap();
        assert_eq!(
            wish,
            Wish {
                list: Where::First("/x".into()),
                remove: true
            }
        );
        assert!(read(&words("install")).is_ok());
        for bad in [
            "",
            "remove",
            "install --file",
            "install --dry-run",
            "install x",
        ] {
            assert!(read(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_network_is_changed_keeps_its_mode_and_is_as_it_was_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let list = "{\"name\":\"a\",\"plugins\":[{\"type\":\"bridge\"}]}\n";
        let wish = |remove| Wish {
            list: Where::First(folder.path().into()),
            remove,
        };
        assert!(install(&wish(false)).unwrap_err().contains("no network"));
        for name in ["10-a.conflist", "20-b.conflist", "00-note.txt"] {
            fs::write(at(name), list).unwrap();
        }
        fs::set_permissions(at("10-a.conflist"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(install(&wish(false)).unwrap().contains("was put"));
        let changed = fs::read_to_string(at("10-a.conflist")).unwrap();
        assert!(changed.contains("vdn-chain"), "{changed}");
        assert_eq!(fs::read_to_string(at("20-b.conflist")).unwrap(), list);
        let mode = fs::metadata(at("10-a.conflist"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(install(&wish(false)).unwrap().contains("already"));
        assert!(install(&wish(true)).unwrap().contains("taken out"));
        assert_eq!(fs::read_to_string(at("10-a.conflist")).unwrap(), list);
        fs::write(at("05-one.conf"), "{\"type\":\"bridge\"}").unwrap();
        assert!(
            install(&wish(false))
                .unwrap_err()
                .contains("conflist first")
        );
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            4,
            "no temporary file is left"
        );
    }
}
