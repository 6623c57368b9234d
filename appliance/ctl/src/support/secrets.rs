//! The secrets of this host, read so that they can be taken out of everything else. They are held in
//! memory and go nowhere.

use dtnd::Places;
use std::path::{Path, PathBuf};

/// Longest file that is read for secrets; longer ones are none.
const LONGEST: u64 = 1 << 20;
/// Most files of one folder.
const MOST: usize = 200;

/// Texts of all files that hold secrets, and the values of variables whose names say so.
pub(super) fn known(root: &Path, kubeconfig: Option<&Path>) -> Vec<String> {
    let places = Places::new(root);
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let state = places.state();
    let mut found = Vec::new();
    // tokens, credentials and keys lie beside the configuration
    let mut files = files_of(&below("/etc/dtn"));
    files.retain(|file| file.extension().is_none_or(|end| end != "toml"));
    files.extend(files_of(&places.identity()));
    files.extend(files_of(&state.join("vdn/keys")));
    files.extend(kubeconfig.map(Path::to_path_buf));
    files.extend(files_of(&places.run().join("credentials")));
    for file in named_in_configuration(&below("/etc/dtn")) {
        files.push(root.join(file.strip_prefix("/").unwrap_or(&file)));
        files.push(file);
    }
    for file in files {
        let Ok(text) = read(&file) else { continue };
        // certificates stand beside keys and are no secret
        found.push(without_certificates(&text));
    }
    found.extend(
        std::env::vars()
            .filter(|(name, value)| value.len() >= 8 && super::redact::is_secret(name))
            .map(|(_, value)| value),
    );
    found
}

fn read(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?
        .take(LONGEST)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if found.len() >= MOST {
                return found;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// Files that the configuration names as those that hold a secret: `token-file = "…"`.
fn named_in_configuration(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files_of(folder) {
        let Ok(text) = read(&file) else { continue };
        for line in text.lines() {
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            let name = name.trim();
            let names_secret = [
                "token",
                "credential",
                "password",
                "secret",
                "key",
                "kubeconfig",
            ]
            .iter()
            .any(|part| name.contains(part));
            let path = value.trim().trim_matches('"');
            if names_secret && path.starts_with('/') {
                found.push(PathBuf::from(path));
            }
        }
    }
    found
}

/// What stands between the marks of certificates is public.
fn without_certificates(text: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut left = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        left.push_str(&rest[..at]);
        rest = rest[at..]
            .find(END)
            .map_or("", |end| &rest[at + end + END.len()..]);
    }
    left.push_str(rest);
    left
}
