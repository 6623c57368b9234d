//! The host as steps see it: its root, and whether its services and kernel can be spoken with.

use crate::{
    accounts::{self, Files},
    facts::below,
    image::{Bytes, Image, Owned, put, sweep},
};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The host below a root.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// `/`, or a tree that is prepared to be a host's.
    pub(crate) root: PathBuf,
    /// The root is this machine's own.
    pub(crate) live: bool,
    /// Whether the distribution's packages are apt's; else they are dnf's.
    pub(crate) apt: bool,
}

/// The files of accounts.
const ACCOUNTS: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"];

impl Host {
    /// A path below the root.
    pub(crate) fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        below(&self.root, path)
    }

    /// The files of accounts, as they are.
    pub(crate) fn account_files(&self) -> Result<Files> {
        let read = |path: &str| -> Result<Option<String>> {
            let file = self.at(path);
            match fs::read_to_string(&file) {
                Ok(text) => Ok(Some(text)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e).with_context(|| format!("reading {}", file.display())),
            }
        };
        let [passwd, group, shadow, gshadow] = ACCOUNTS;
        Ok(Files {
            passwd: read(passwd)?.unwrap_or_default(),
            group: read(group)?.unwrap_or_default(),
            shadow: read(shadow)?,
            gshadow: read(gshadow)?,
        })
    }

    /// Changes the files of accounts, under the lock that all tools of accounts take. What differs is
    /// written whole, groups before users; mode and owner stay.
    pub(crate) fn change_accounts(&self, change: impl Fn(&Files) -> Result<Files>) -> Result<()> {
        let _lock = if self.live {
            Some(lock_accounts()?)
        } else {
            None
        };
        for path in ACCOUNTS {
            sweep(&self.at(path))?;
        }
        let before = self.account_files()?;
        let after = change(&before)?;
        let texts = [
            ("/etc/group", Some(&before.group), Some(&after.group)),
            (
                "/etc/gshadow",
                before.gshadow.as_ref(),
                after.gshadow.as_ref(),
            ),
            ("/etc/passwd", Some(&before.passwd), Some(&after.passwd)),
            ("/etc/shadow", before.shadow.as_ref(), after.shadow.as_ref()),
        ];
        for (path, old, new) in texts {
            let (Some(new), false) = (new, old == new) else {
                continue;
            };
            let file = self.at(path);
            let owned = match Image::of(&file)? {
                Image::File { owned, .. } => owned,
                Image::Absent => Owned {
                    mode: 0o644,
                    ..Owned::default()
                },
                _ => bail!("{}: is not a file", file.display()),
            };
            put(&file, &Bytes::Text(new.as_bytes()), &owned, None)?;
        }
        Ok(())
    }

    /// Number of a user of this host.
    pub(crate) fn user(&self, name: &str) -> Result<Option<u32>> {
        self.number(name, "/etc/passwd", || {
            let user = nix::unistd::User::from_name(name);
            user.ok().flatten().map(|user| user.uid.as_raw())
        })
    }

    /// Number of a group of this host.
    pub(crate) fn group(&self, name: &str) -> Result<Option<u32>> {
        self.number(name, "/etc/group", || {
            let group = nix::unistd::Group::from_name(name);
            group.ok().flatten().map(|group| group.gid.as_raw())
        })
    }

    fn number(
        &self,
        name: &str,
        file: &str,
        elsewhere: impl Fn() -> Option<u32>,
    ) -> Result<Option<u32>> {
        if name == "root" {
            return Ok(Some(0));
        }
        let text = fs::read_to_string(self.at(file)).unwrap_or_default();
        // a directory service may know it
        Ok(accounts::number_of(&text, name).or_else(|| self.live.then(elsewhere).flatten()))
    }
}

/// The lock of lckpwdf(3): a record lock on /etc/.pwd.lock. It ends with its file.
fn lock_accounts() -> Result<fs::File> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open("/etc/.pwd.lock")
        .context("opening /etc/.pwd.lock")?;
    let whole = nix::libc::flock {
        l_type: nix::libc::F_WRLCK as nix::libc::c_short,
        l_whence: nix::libc::SEEK_SET as nix::libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    for _ in 0..150 {
        if nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&whole)).is_ok() {
            return Ok(file);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    bail!("/etc/.pwd.lock: somebody changes accounts for 15 s: try again when that is done")
}
