//! Secrets that the service manager read for a daemon (`LoadCredential=`): the daemon's user need not
//! be able to read the admin's files, and no path stands in the configuration.

use std::{
    io,
    path::{Path, PathBuf},
};

/// How the configuration names one, where it would write a path.
const PREFIX: &str = "credential:";

/// Where a secret is that the configuration names as `credential:NAME`, or by its path.
pub fn find(named: &Path) -> io::Result<PathBuf> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    resolve(named, folder.as_deref())
}

/// The same without the environment.
fn resolve(named: &Path, folder: Option<&Path>) -> io::Result<PathBuf> {
    let Some(name) = named.to_str().and_then(|text| text.strip_prefix(PREFIX)) else {
        return Ok(named.to_owned());
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{PREFIX}{name}: a credential's name has letters, digits, '-', '_' and '.', and does not begin with '.'"
            ),
        ));
    }
    let folder = folder.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{PREFIX}{name}: no service manager has handed over credentials; start the daemon by its unit, or name a file"
            ),
        )
    })?;
    // the unit hands over a whole folder, and each file of it comes with the folder's name before its own
    let files = [folder.join(name), folder.join(format!("dtn_{name}"))];
    match files.iter().find(|file| file.exists()) {
        Some(file) => Ok(file.clone()),
        None => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{PREFIX}{name}: the service manager has handed over none of that name; write it to /etc/dtn/credentials/{name} and restart the service"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_itself_and_a_credential_is_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Some(dir.path());
        std::fs::write(dir.path().join("token"), "x").unwrap();
        std::fs::write(dir.path().join("dtn_onos"), "x").unwrap();
        let of = |named: &str| resolve(Path::new(named), folder);
        assert_eq!(of("/etc/dtn/token").unwrap(), Path::new("/etc/dtn/token"));
        assert_eq!(of("credential:token").unwrap(), dir.path().join("token"));
        assert_eq!(of("credential:onos").unwrap(), dir.path().join("dtn_onos"));
        let none = of("credential:none").unwrap_err();
        assert!(
            none.to_string().contains("/etc/dtn/credentials/none"),
            "{none}"
        );
        for wrong in ["credential:", "credential:../x", "credential:a/b"] {
            let told = of(wrong).unwrap_err();
            assert_eq!(told.kind(), io::ErrorKind::InvalidInput, "{told}");
        }
        let alone = resolve(Path::new("credential:token"), None).unwrap_err();
        assert!(alone.to_string().contains("by its unit"), "{alone}");
    }
}
