//! `dtn-install`: turns a host into a DTN, brings it to a newer release, and gives it back as it was.
//!
//! `install.sh` is what an admin calls: it checks or builds a release and hands over to this program.
//! A walk through the files: [`facts`] (what the host is) → [`preflight`] (may it be) → [`propose`] (its
//! configuration) → [`plan`] (steps) → [`deed`] (done one by one, each noted in the [`journal`] before) →
//! [`undo`] (the way back, of a run that failed and of all of it).

mod accounts;
mod answer;
mod assemble;
mod command;
mod configured;
mod consent;
mod deed;
mod facts;
mod failpoint;
mod handover;
mod held;
mod host;
mod image;
mod install;
mod journal;
mod materials;
mod packages;
mod plan;
mod podman;
mod preflight;
mod propose;
mod recovery;
mod release;
mod show;
mod step;
mod tuning;
mod undo;
mod uninstall;
mod units;

use clap::{Args, Parser, Subcommand};
use dtn_api::{Name, nic::NicClass};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// How it ended, besides success and wrong usage (2).
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed, and everything that this run did was taken back.
    Failed(anyhow::Error),
    /// Nothing was changed: the host is not fit, or the admin said no.
    Refused(String),
    /// It failed, and not all could be taken back.
    Between(anyhow::Error, Vec<String>),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Installs the DTN appliance on this host, upgrades it, and takes it off again.
///
/// Exit status: 0 done, 1 failed and taken back, 2 wrong usage, 3 refused (nothing was changed),
/// 4 failed and not wholly taken back (what is left is listed; the next call goes on with it).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install, or upgrade to, an unpacked release
    Install(InstallOptions),
    /// Give the host back as it was before the first installation
    Uninstall(UninstallOptions),
    /// Only look at the host, and say what stands in the way
    Check(InstallOptions),
    /// Make the folder of a release out of a checkout and its programs
    Assemble(assemble::Options),
}

/// Options of `install`.
#[derive(Debug, Clone, Args)]
pub(crate) struct InstallOptions {
    /// Folder of the unpacked release
    #[arg(long, value_name = "DIR")]
    pub(crate) release: PathBuf,
    /// Prepare the tree below DIR instead of this host (services and packages are left out)
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show every change and make none
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Set buffers and rings of the host for fast paths
    #[arg(long)]
    pub(crate) tune: bool,
    /// The host's name in its domain (the machine's)
    #[arg(long)]
    pub(crate) name: Option<Name>,
    /// Give a NIC, as NAME or NAME=shared (those that are free, as dedicated)
    #[arg(long, value_name = "NAME[=CLASS]", value_parser = given)]
    pub(crate) nic: Vec<(String, NicClass)>,
    /// Give no NIC yet
    #[arg(long, conflicts_with = "nic")]
    pub(crate) no_nics: bool,
    /// This host also has the controller of a domain of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) domain: Option<Name>,
    /// Leave the distribution's packages to me
    #[arg(long)]
    pub(crate) no_packages: bool,
    /// Names of packages that were added to get here, one a line; removed once they are in the journal
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) added_packages: Option<PathBuf>,
}

/// Options of `uninstall`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UninstallOptions {
    /// The tree that was prepared
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// Do not ask: pods are ended, and configuration and state are lost
    #[arg(long)]
    pub(crate) yes: bool,
    /// Show what would be taken back and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove the distribution's packages that were added, too
    #[arg(long)]
    pub(crate) packages: bool,
    /// Leave /etc/dtn and /var/lib/dtn for a later installation
    #[arg(long)]
    pub(crate) keep_state: bool,
}

fn given(text: &str) -> Result<(String, NicClass), String> {
    let (name, class) = text.split_once('=').unwrap_or((text, "dedicated"));
    let name: dtn_api::IfName = match name.parse() {
        Ok(name) => name,
        Err(e) => return Err(format!("{e}")),
    };
    Ok((name.to_string(), class.parse()?))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.verb {
        Verb::Install(options) => install::run(&options),
        Verb::Check(options) => install::check(&options),
        Verb::Uninstall(options) => uninstall::run(&options),
        Verb::Assemble(options) => assemble::run(&options).map_err(Failure::Failed),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(error)) => {
            eprintln!("dtn-install: {error:#}");
            ExitCode::from(1)
        }
        Err(Failure::Refused(why)) => {
            eprintln!("dtn-install: {why}");
            ExitCode::from(3)
        }
        Err(Failure::Between(error, left)) => {
            eprintln!("dtn-install: {error:#}");
            for problem in left {
                eprintln!("dtn-install: not taken back: {problem}");
            }
            eprintln!("dtn-install: mend that and call it again: it goes on where it was");
            ExitCode::from(4)
        }
    }
}

/// A root that is a folder, as it is written without links.
pub(crate) fn root(path: &Path) -> Result<PathBuf, Failure> {
    std::fs::canonicalize(path)
        .ok()
        .filter(|path| path.is_dir())
        .ok_or_else(|| Failure::Refused(format!("--root {}: no such folder", path.display())))
}
