//! The lab's own cgroup in every hierarchy, version 1 or 2. The capsule has a cgroup namespace rooted
//! there, so that everything podman makes lies below it and is found by name, also after a kill.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub kind: String,
    /// Mount options that choose it: `memory`, `none,name=systemd`; empty for version 2.
    pub options: String,
}

impl Hierarchy {
    /// Whether it is version 2.
    pub fn unified(&self) -> bool {
        self.kind == "cgroup2"
    }
}

/// The hierarchies in a `/proc/self/mountinfo` (proc(5)): the mounts of a hierarchy's own root.
pub fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let (left, right): (Vec<_>, Vec<_>) =
            (left.split(' ').collect(), right.split(' ').collect());
        let ([_, _, _, root, mount, ..], [kind, _, superblock, ..]) =
            (left.as_slice(), right.as_slice())
        else {
            continue;
        };
        // seen from a new cgroup namespace, mounts from before are rooted one above it (cgroup_namespaces(7))
        if !matches!(*kind, "cgroup" | "cgroup2") || !matches!(*root, "/" | "/..") {
            continue;
        }
        let options = if *kind == "cgroup2" {
            String::new()
        } else {
            choosing(superblock)
        };
        found.push(Hierarchy {
            mount: PathBuf::from(mount),
            kind: (*kind).to_owned(),
            options,
        });
    }
    found
}

/// Of a superblock's options those that name a version 1 hierarchy.
fn choosing(superblock: &str) -> String {
    let skip = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "release_agent",
    ];
    let names: Vec<_> = superblock
        .split(',')
        .filter(|option| !skip.contains(option) && !option.starts_with("release_agent="))
        .collect();
    if names.iter().all(|name| name.starts_with("name=")) {
        return format!("none,{}", names.join(","));
    }
    names.join(",")
}

/// The hierarchies of the calling process's mount namespace.
pub fn mounted() -> io::Result<Vec<Hierarchy>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Makes the cgroup in every hierarchy and moves the calling process in; gives where it was, to go
/// back with [`leave`].
pub fn enter(hierarchies: &[Hierarchy], name: &str) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let before = fs::read_to_string("/proc/self/cgroup")?;
    let mut back = Vec::new();
    for hierarchy in hierarchies {
        let folder = hierarchy.mount.join(name);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // a new cpuset of version 1 is empty and takes no process
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.mount.join(file), folder.join(file));
            if !hierarchy.unified() && from.is_file() {
                fs::write(to, fs::read(from)?)?;
            }
        }
        let home = home(&before, hierarchy).unwrap_or_else(|| "/".into());
        let home = hierarchy.mount.join(home.trim_start_matches('/'));
        fs::write(folder.join("cgroup.procs"), "0")?;
        back.push((home, folder));
    }
    Ok(back)
}

/// The path of a process in a hierarchy, from its `/proc/PID/cgroup` (cgroups(7)).
fn home(listing: &str, hierarchy: &Hierarchy) -> Option<String> {
    listing.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let wanted = hierarchy.options.trim_start_matches("none,");
        (names == wanted).then(|| path.to_owned())
    })
}

/// Moves the calling process back to where [`enter`] found it.
pub fn leave(back: &[(PathBuf, PathBuf)]) -> io::Result<()> {
    for (home, _) in back {
        fs::write(home.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

/// Removes the cgroup from every hierarchy with all below it. Its processes are being reaped by the
/// kernel, which takes a moment; what is still busy after `deadline` is named.
pub fn sweep(
    hierarchies: &[Hierarchy],
    name: &str,
    deadline: Duration,
) -> Result<(), Vec<PathBuf>> {
    let end = Instant::now() + deadline;
    loop {
        let mut left = Vec::new();
        for hierarchy in hierarchies {
            let folder = hierarchy.mount.join(name);
            if folder.exists() && !remove(&folder) {
                left.push(folder);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(left);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Removes a cgroup from the leaves up; whether all of it went.
fn remove(folder: &Path) -> bool {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path());
            }
        }
    }
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = "\
25 20 0:21 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
27 25 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
28 25 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
29 25 0:32 /docker/x /elsewhere rw,relatime - cgroup cgroup rw,memory
30 1 0:33 / /mnt rw,relatime shared:1 - ext4 /dev/vda rw
";

    #[test]
    fn hierarchies_of_both_versions_are_found_with_what_chooses_them() {
        let found = parse(MIXED);
        let options: Vec<_> = found.iter().map(|h| h.options.as_str()).collect();
        assert_eq!(options, ["cpu,cpuacct", "none,name=systemd", ""]);
        assert!(found[2].unified() && found[2].mount.ends_with("unified"));
    }

    #[test]
    fn a_process_is_found_in_its_hierarchy() {
        let listing = "3:cpu,cpuacct:/user\n2:name=systemd:/init\n0::/v2\n";
        let homes: Vec<_> = parse(MIXED)
            .iter()
            .map(|h| home(listing, h).unwrap())
            .collect();
        assert_eq!(homes, ["/user", "/init", "/v2"]);
    }

    #[test]
    fn sweeping_removes_a_tree_and_names_what_stays() {
        let dir = tempfile::tempdir().unwrap();
        let hierarchy = Hierarchy {
            mount: dir.path().into(),
            kind: "cgroup".into(),
            options: String::new(),
        };
        fs::create_dir_all(dir.path().join("x/a/b")).unwrap();
        sweep(std::slice::from_ref(&hierarchy), "x", Duration::ZERO).unwrap();
        assert!(!dir.path().join("x").exists());
        // a plain file cannot be removed as a cgroup's control file would vanish: it stays and is named
        fs::create_dir_all(dir.path().join("y")).unwrap();
        fs::write(dir.path().join("y/file"), "").unwrap();
        let left = sweep(&[hierarchy], "y", Duration::ZERO).unwrap_err();
        assert_eq!(left, [dir.path().join("y")]);
    }
}
