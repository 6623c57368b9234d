//! Making entries below one folder and nowhere else. Every path is resolved by the kernel beneath
//! that folder and without following any link (openat2(2)), so no list and no other process can
//! lead a write outside.

use crate::{
    list::split,
    tree::{Entry, Kind},
};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::{
        stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstatat, futimens, mkdirat},
        time::TimeSpec,
    },
    unistd::{LinkatFlags, UnlinkatFlags, linkat, symlinkat, unlinkat},
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

/// The destination.
#[derive(Debug)]
pub struct Root(OwnedFd);

const DIR: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

impl Root {
    /// Opens the folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// The folder below at this path; the root itself for an empty one.
    pub fn folder(&self, path: &[u8]) -> io::Result<File> {
        let path = if path.is_empty() { b"." } else { path };
        let how = OpenHow::new()
            .flags(DIR)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(File::from(openat2(&self.0, OsStr::from_bytes(path), how)?))
    }

    /// Makes a folder that can be worked in; its own mode comes at the end, with [`Root::finish`].
    /// One that an earlier run has finished is opened up again.
    pub fn make_folder(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.folder(parent)?;
        let name = OsStr::from_bytes(name);
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => {
                let found = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if found.st_mode & nix::libc::S_IFMT != nix::libc::S_IFDIR {
                    return Err(io::Error::from(Errno::ENOTDIR));
                }
                fchmodat(&parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a symbolic link.
    pub fn make_link(&self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.folder(parent)?;
        let name = OsStr::from_bytes(name);
        match symlinkat(OsStr::from_bytes(target), &parent, name) {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST)
                if readlinkat(&parent, name) == Ok(OsString::from_vec(target.to_vec())) =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A new empty file, in place of what an earlier run left there.
    pub fn new_file(&self, path: &[u8]) -> io::Result<File> {
        let (parent, name) = split(path);
        let parent = self.folder(parent)?;
        let name = OsStr::from_bytes(name);
        match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(openat(
            &parent,
            name,
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )?))
    }

    /// Gives the file at `source` a second name below the root. A name that is there already and
    /// is this same file is as good.
    pub fn adopt(&self, source: &Path, path: &[u8]) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.folder(parent)?;
        let name = OsStr::from_bytes(name);
        let link = || linkat(AT_FDCWD, source, &parent, name, LinkatFlags::empty());
        match link() {
            Ok(()) => Ok(()),
            Err(Errno::EEXIST) => {
                let there = fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                let here = fstatat(AT_FDCWD, source, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) {
                    unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
                    link()?;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Size of the file at this path; `None` when there is none.
    pub fn size(&self, path: &[u8]) -> io::Result<Option<u64>> {
        let (parent, name) = split(path);
        let parent = self.folder(parent)?;
        match fstatat(
            &parent,
            OsStr::from_bytes(name),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            Ok(found) if found.st_mode & nix::libc::S_IFMT == nix::libc::S_IFREG => {
                Ok(Some(u64::try_from(found.st_size).unwrap_or(0)))
            }
            Ok(_) | Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a folder its mode and time and puts it on the disk. The deepest come first: what is
    /// below a folder without rights cannot be reached any more.
    pub fn finish(&self, entry: &Entry) -> io::Result<()> {
        debug_assert_eq!(entry.kind, Kind::Dir);
        let folder = self.folder(&entry.path)?;
        dress(folder.as_fd(), entry)?;
        folder.sync_all()
    }
}

/// Gives an open file or folder the listed time and mode.
pub fn dress(fd: impl AsFd, entry: &Entry) -> io::Result<()> {
    let time = TimeSpec::new(
        entry.mtime_ns.div_euclid(1_000_000_000),
        entry.mtime_ns.rem_euclid(1_000_000_000),
    );
    futimens(&fd, &time, &time)?;
    fchmod(&fd, Mode::from_bits_truncate(entry.mode))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_link_never_leads_outside() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(outside.path(), dir.path().join("out")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        for path in [&b"out/f"[..], b"../f", b"out/../f", b"/tmp/f"] {
            assert!(root.new_file(path).is_err(), "{path:?}");
            assert!(root.make_folder(path).is_err(), "{path:?}");
            assert!(root.make_link(path, b"x").is_err(), "{path:?}");
        }
        // a link in the place of a file is replaced, never written through
        symlink(outside.path().join("f"), dir.path().join("f")).unwrap();
        root.new_file(b"f").unwrap();
        assert!(dir.path().join("f").symlink_metadata().unwrap().is_file());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        // nor does a folder that is a link count as one
        assert!(root.make_folder(b"out").is_err());
    }

    #[test]
    fn everything_can_be_done_twice() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let big = dir.path().join("9.ready");
        let entry = Entry {
            path: b"d".to_vec(),
            kind: Kind::Dir,
            mode: 0o1550,
            mtime_ns: -1_500_000_000,
            sha256: None,
        };
        for _ in 0..2 {
            fs::write(&big, b"big").unwrap();
            root.make_folder(b"d").unwrap();
            root.make_link(b"d/l", b"../x\xff").unwrap();
            let file = root.new_file(b"d/f").unwrap();
            dress(
                &file,
                &Entry {
                    kind: Kind::File(0),
                    mode: 0o4000,
                    ..entry.clone()
                },
            )
            .unwrap();
            root.adopt(&big, b"d/b").unwrap();
            root.finish(&entry).unwrap();
        }
        let meta = fs::metadata(dir.path().join("d")).unwrap();
        assert_eq!(
            (meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()),
            (0o1550, -2, 500_000_000)
        );
        assert_eq!(
            fs::metadata(dir.path().join("d/f"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o4000
        );
        assert_eq!(root.size(b"d/b").unwrap(), Some(3));
        assert_eq!(root.size(b"d/none").unwrap(), None);
    }
}
