//! Makes the folder of a release out of a checkout and the programs that were built from it. What
//! becomes of it (a signed bundle, or an installation at once) is `install.sh`'s.

use crate::{
    image::digest,
    materials,
    release::{self, FORMAT, INSTALLER, LIST, Release},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Options of `assemble`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The checkout
    #[arg(long, value_name = "DIR")]
    checkout: PathBuf,
    /// Folder of its programs
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// What machines its programs run on, as Rust calls it; those of this one
    #[arg(long, value_name = "ARCH", default_value = std::env::consts::ARCH)]
    machine: String,
    /// Folder of images to take in (*.tar)
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The folder to make; it must not be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The programs, and where in a release they are.
const PROGRAMS: [(&str, &str); 8] = [
    ("dtnctl", "bin/dtnctl"),
    ("dtnd", "sbin/dtnd"),
    ("vdnd", "sbin/vdnd"),
    ("dtn-install", INSTALLER),
    ("vdn-host-device", "cni/vdn-host-device"),
    ("vdn-macvlan", "cni/vdn-macvlan"),
    ("vdn-chain", "cni/vdn-chain"),
    ("vdn-ipam", "cni/vdn-ipam"),
];

/// Other files of the checkout; those of the first list must be there.
const FILES: [(&str, &str); 2] = [
    ("LICENSE", "doc/LICENSE"),
    ("docs/admin.md", "doc/admin.md"),
];
/// References of the configuration, and the maker's own layer of it.
const WHERE_THERE: [(&str, &str); 4] = [
    ("config/appliance.toml", "doc/appliance.toml"),
    ("config/dtnd.toml", "doc/dtnd.toml"),
    ("config/vdnd.toml", "doc/vdnd.toml"),
    ("appliance/units/appliance.toml", "share/appliance.toml"),
];
/// Ends of files in a template's folder that are for the tests of the project alone.
const NOT_SHIPPED: &str = ".snap";

/// Makes it.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.out.exists() {
        bail!(
            "--out {}: is there already; remove it, or name another",
            options.out.display()
        );
    }
    let from = |path: &str| options.checkout.join(path);
    let put = |source: &Path, path: &str| copy(source, &options.out.join(path), mode(path));
    for (name, path) in PROGRAMS {
        put(&options.programs.join(name), path)
            .with_context(|| format!("{name} (cargo build --release makes it)"))?;
    }
    for (source, path) in FILES {
        put(&from(source), path)?;
    }
    for (source, path) in WHERE_THERE {
        if from(source).exists() {
            put(&from(source), path)?;
        }
    }
    let units = from("appliance/units");
    if !units.is_dir() {
        bail!("{}: there are no units", units.display());
    }
    for name in release::listed(&units)? {
        let known = [".service", ".socket", ".conf"];
        if known.iter().any(|ending| name.ends_with(ending)) && !name.contains('/') {
            put(&units.join(&name), &format!("units/{name}"))?;
        }
    }
    let templates = from("dtn-workloads");
    for name in release::listed(&templates)? {
        let folder = name.split('/').next().unwrap_or_default();
        if templates.join(folder).join("values.toml").exists() && !name.ends_with(NOT_SHIPPED) {
            put(&templates.join(&name), &format!("workloads/{name}"))?;
        }
    }
    if let Some(images) = &options.images {
        for name in release::listed(images)? {
            if name.ends_with(".tar") && !name.contains('/') {
                put(&images.join(&name), &format!("images/{name}"))?;
            }
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let metadata = metadata(&options.checkout, &options.machine)?;
    let materials = materials::cyclonedx(&metadata, version)?;
    let file = options.out.join("doc/materials.cdx.json");
    fs::write(&file, serde_json::to_vec_pretty(&materials)?)
        .with_context(|| format!("writing {}", file.display()))?;
    list(&options.out, version, &options.machine)
}

/// Writes the list of all that is there.
fn list(out: &Path, version: &str, machine: &str) -> Result<()> {
    let mut files = BTreeMap::new();
    for path in release::listed(out)? {
        if release::place(&path).is_none() {
            bail!("{path}: has no place on a host (appliance/install/src/release.rs)");
        }
        let digest = digest(&out.join(&path))?;
        files.insert(path, digest);
    }
    let release = Release {
        format: FORMAT,
        version: version.to_owned(),
        machine: machine.to_owned(),
        files,
        folder: PathBuf::new(),
    };
    let file = out.join(LIST);
    fs::write(&file, serde_json::to_vec_pretty(&release)?)
        .with_context(|| format!("writing {}", file.display()))
}

fn mode(path: &str) -> u32 {
    release::place(path).map_or(0o644, |(_, mode)| mode)
}

fn copy(source: &Path, target: &Path, mode: u32) -> Result<()> {
    let doing = || format!("copying {} to {}", source.display(), target.display());
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(doing)?;
    }
    fs::copy(source, target).with_context(doing)?;
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).with_context(doing)
}

/// What cargo says of all packages, for this kind of machine.
fn metadata(checkout: &Path, machine: &str) -> Result<serde_json::Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = format!("{machine}-unknown-linux-gnu");
    let said = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
        ])
        .arg(target)
        .current_dir(checkout)
        .output()
        .context("calling cargo metadata for the list of materials")?;
    if !said.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&said.stderr).trim()
        );
    }
    serde_json::from_slice(&said.stdout).context("reading what cargo metadata said")
}
