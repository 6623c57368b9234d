//! One podman per site, as a service on a unix socket, with its storage in the lab's folder and all
//! else in the site's own `/run`: the machine's podman, its pods and networks are not touched.

use crate::{
    Options,
    pillar::{Pillar, Watch},
    place::Place,
    preflight, runtime,
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

/// The image of the transfer pods, as the templates name it.
pub const IMAGE: &str = "localhost/dtn-transfer:latest";
/// How long an import may take: some 100 MB are unpacked.
const IMPORT: Duration = Duration::from_secs(300);

/// What every site's engine is set up with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// `overlay`, or `vfs` where the folder's file system cannot carry an overlay.
    pub storage: &'static str,
    /// The OCI runtime: runc itself, or the script in front of it.
    pub runtime: PathBuf,
}

/// Finds out what the engines need here; gives also what is to be named in the report.
pub fn set_up(place: &Place, program: &Path) -> Result<(Setup, Vec<String>)> {
    let mut notes = Vec::new();
    let runc = preflight::find_program("runc").context("looking for runc")?;
    let status = fs::read_to_string("/proc/self/status").context("reading the own capabilities")?;
    let runtime = if runtime::may_raise_limits(&status) {
        runc
    } else {
        notes.push(
            "limits cannot be raised here (no CAP_SYS_RESOURCE): a step in front of runc drops rlimits and oomScoreAdj".into(),
        );
        let script = place.run().join("runc-lab");
        let text = format!(
            "#!/bin/sh\nexec '{}' lab part runtime '{}' \"$@\"\n",
            program.display(),
            runc.display()
        );
        fs::write(&script, text)
            .and_then(|()| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", script.display()))?;
        script
    };
    let storage = if carries_overlay(place)? {
        "overlay"
    } else {
        notes.push(format!(
            "{} cannot carry an overlay: images are copied (vfs)",
            place.state().display()
        ));
        "vfs"
    };
    Ok((Setup { storage, runtime }, notes))
}

/// Whether the folder's file system can be the upper layer of an overlay.
pub(crate) fn carries_overlay(place: &Place) -> Result<bool> {
    let base = place.run().join("overlay-try");
    let part = |name: &str| base.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(part(name))
            .with_context(|| format!("making {}", part(name).display()))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        part("lower").display(),
        part("upper").display(),
        part("work").display()
    );
    let merged = part("merged");
    let works = mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .is_ok();
    if works {
        umount2(&merged, MntFlags::MNT_DETACH)
            .with_context(|| format!("detaching {}", merged.display()))?;
    }
    Ok(works)
}

/// containers.conf(5) of a site.
pub fn configuration(setup: &Setup, root: &Path) -> String {
    format!(
        r#"# podman of a simulated site.
[containers]
log_driver = "k8s-file"

[network]
network_config_dir = "{networks}"

[engine]
# the capsule has no systemd, and the events need no journal
cgroup_manager = "cgroupfs"
events_logger = "file"
image_copy_tmp_dir = "{copies}"
runtime = "lab"

[engine.runtimes]
lab = ["{runtime}"]
"#,
        networks = root.join("etc/containers/networks").display(),
        copies = root.join("var/tmp").display(),
        runtime = setup.runtime.display()
    )
}

/// The engine of one site.
pub struct Engine {
    /// Its process, for as long as this is held.
    _service: Pillar,
}

/// The REST socket of a site's engine.
pub fn socket(root: &Path) -> PathBuf {
    root.join("run/podman/podman.sock")
}

fn conf(root: &Path) -> PathBuf {
    root.join("etc/containers/containers.conf")
}

/// podman on a site's host, with the site's own places.
pub fn podman(site: &Site, place: &Place, setup: &Setup) -> tokio::process::Command {
    let root = place.root(site.name);
    let mut command = site.command("podman");
    command
        .arg("--root")
        .arg(root.join("containers"))
        // in the site's /run, which is in memory and its own
        .args([
            "--runroot",
            "/run/containers/storage",
            "--storage-driver",
            setup.storage,
        ])
        .env("CONTAINERS_CONF", conf(&root))
        .env("TMPDIR", root.join("var/tmp"))
        .env_remove("NOTIFY_SOCKET");
    command
}

/// Starts a site's engine with the transfer image in it.
pub async fn start(
    site: &Site,
    place: &Place,
    setup: &Setup,
    options: &Options,
    watch: &Watch,
) -> Result<Engine> {
    let root = place.root(site.name);
    for folder in [
        "etc/containers/networks",
        "containers",
        "run/podman",
        "var/tmp",
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(conf(&root), configuration(setup, &root))
        .with_context(|| format!("writing {}", conf(&root).display()))?;
    import(site, place, setup, options).await?;

    let socket = socket(&root);
    let log = place.log(&format!("{}-podman", site.name));
    let file = fs::File::create(&log).with_context(|| format!("opening {}", log.display()))?;
    let again = file
        .try_clone()
        .with_context(|| format!("opening {}", log.display()))?;
    let child = podman(site, place, setup)
        .args(["system", "service", "--time", "0"])
        .arg(format!("unix://{}", socket.display()))
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        .spawn()
        .with_context(|| format!("starting podman of {}", site.name))?;
    let service = watch.over(format!("podman of {}", site.name), &log, child);
    let end = Instant::now() + SHORT;
    while !answers(&socket) {
        if Instant::now() >= end {
            bail!(
                "podman of {} does not answer after {} s; its log is {}",
                site.name,
                SHORT.as_secs(),
                log.display()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Engine { _service: service })
}

/// Imports the image with what its configuration says (podman-import(1), `--change`).
async fn import(site: &Site, place: &Place, setup: &Setup, options: &Options) -> Result<()> {
    let file = options.share.join("images/dtn-transfer/config");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut command = podman(site, place, setup);
    command.args(["import", "--quiet"]);
    for line in changes(&text) {
        command.args(["--change", line]);
    }
    command.arg(&options.image).arg(IMAGE);
    shell::output(command, None, IMPORT)
        .await
        .with_context(|| format!("importing {} at {}", options.image.display(), site.name))?;
    Ok(())
}

fn changes(config: &str) -> impl Iterator<Item = &str> {
    config
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether an engine answers on its socket.
fn answers(socket: &Path) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: d\r\n\r\n")?;
        let mut head = [0; 15];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(b" 200 OK"))
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_s_podman_keeps_to_the_site() {
        let setup = Setup {
            storage: "overlay",
            runtime: "/run/lab/runc-lab".into(),
        };
        let text = configuration(&setup, Path::new("/s/sites/busan"));
        let parsed: toml::Value = toml::from_str(&text).unwrap();
        assert_eq!(
            parsed["engine"]["runtimes"]["lab"][0].as_str(),
            Some("/run/lab/runc-lab")
        );
        assert_eq!(
            parsed["engine"]["cgroup_manager"].as_str(),
            Some("cgroupfs")
        );
        let own = parsed["network"]["network_config_dir"].as_str().unwrap();
        assert!(own.starts_with("/s/sites/busan/"));
    }

    #[test]
    fn comments_are_no_changes() {
        let found: Vec<_> = changes("# why\n\nUSER 1:1\n CMD [\"x\"]\n").collect();
        assert_eq!(found, ["USER 1:1", "CMD [\"x\"]"]);
    }
}
