//! The transfer key: the secret that both ends of a transfer share, in the keytab form of
//! XRootD's `sss` protocol (one line, as `xrdsssadmin` writes it). Who holds it may write to the
//! incoming folder, and nobody else may do anything.

use ring::rand::{SecureRandom as _, SystemRandom};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, fchown},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// The user that the key stands for, in the server's access rules.
const USER: &str = "dtn";

/// A transfer key; it is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct TransferKey {
    id: u64,
    created: u64,
    secret: [u8; 32],
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The kernel gave no random bytes.
    #[error("no random bytes can be had for a key")]
    Random,
    /// The file cannot be written or read.
    #[error("the transfer key {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not of this form.
    #[error(
        "the transfer key {path} is not one line of 0 u:USER g:GROUP n:NAME N:ID c:TIME e:TIME f:FLAGS k:HEX; remove it and deploy again"
    )]
    Form {
        /// Which.
        path: String,
    },
}

impl TransferKey {
    /// A new key of 256 random bits.
    pub fn generate(now: SystemTime) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        for bytes in [&mut id[..], &mut secret[..]] {
            random.fill(bytes).map_err(|_| KeyError::Random)?;
        }
        Ok(Self {
            // the number is signed there, and 0 has a meaning
            id: (u64::from_be_bytes(id) >> 1).max(1),
            created: now
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            secret,
        })
    }

    /// The line of a keytab; it never expires by itself, a run's end removes it.
    pub fn line(&self) -> String {
        let hex: String = self
            .secret
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (id, created) = (self.id, self.created);
        format!("0 u:{USER} g:{USER} n:{USER} N:{id} c:{created} e:0 f:0 k:{hex}\n")
    }

    /// Writes the key for this user alone, over what is there.
    pub fn write(&self, path: &Path, uid: u32) -> Result<(), KeyError> {
        let failed = |source| KeyError::File {
            path: path.display().to_string(),
            source,
        };
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(self.line().as_bytes())?;
            fchown(&file, Some(uid), Some(uid))?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            path.parent()
                .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        };
        write().map_err(failed)
    }

    /// The key in a file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| KeyError::File {
            path: shown.clone(),
            source,
        })?;
        Self::parse(&text).ok_or(KeyError::Form { path: shown })
    }

    /// The key in a text; `None` when it is not of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.trim_end().split(' ');
        (fields.next()? == "0").then_some(())?;
        let (mut id, mut created, mut secret) = (None, None, None);
        for field in fields {
            match field.split_once(':')? {
                ("N", value) => id = value.parse().ok(),
                ("c", value) => created = value.parse().ok(),
                ("k", value) if value.len() == 64 && value.is_ascii() => {
                    let digits = |at: usize| u8::from_str_radix(value.get(at..at + 2)?, 16).ok();
                    let mut bytes = [0; 32];
                    for (index, byte) in bytes.iter_mut().enumerate() {
                        *byte = digits(index * 2)?;
                    }
                    secret = Some(bytes);
                }
                ("u" | "g" | "n", value) if value == USER => {}
                ("e" | "f", "0") => {}
                _ => return None,
            }
        }
        Some(Self {
            id: id?,
            created: created?,
            secret: secret?,
        })
    }
}

impl fmt::Debug for TransferKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransferKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_differ_come_back_and_are_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sss.keytab");
        let uid = fs::metadata(dir.path())
            .map(|m| std::os::unix::fs::MetadataExt::uid(&m))
            .unwrap();
        let (a, b) = (
            TransferKey::generate(UNIX_EPOCH).unwrap(),
            TransferKey::generate(UNIX_EPOCH).unwrap(),
        );
        assert_ne!(a.secret, b.secret);
        for key in [&a, &b, &b] {
            key.write(&path, uid).unwrap();
            assert_eq!(&TransferKey::read(&path).unwrap(), key);
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(!format!("{a:?}").contains(&a.line()[60..80]));
        fs::write(&path, "0 u:root k:00\n").unwrap();
        assert!(matches!(
            TransferKey::read(&path),
            Err(KeyError::Form { .. })
        ));
    }

    #[test]
    fn xrootds_own_tool_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sss.keytab");
        let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.path()).unwrap());
        TransferKey::generate(SystemTime::now())
            .unwrap()
            .write(&path, uid)
            .unwrap();
        match std::process::Command::new("xrdsssadmin")
            .arg("list")
            .arg(&path)
            .output()
        {
            Ok(listed) => {
                let text = String::from_utf8_lossy(&listed.stdout);
                assert!(text.lines().any(|l| l.contains("dtn dtn dtn")), "{text}");
            }
            Err(error) => {
                println!("skipped: xrdsssadmin is not installed (Debian: xrootd-server): {error}")
            }
        }
    }
}
