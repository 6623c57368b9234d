//! `dtnctl lab`: two simulated sites on this machine. The work is done by the crate `dtn-lab`.

use std::process::ExitCode;

/// Options of `lab`.
#[derive(Debug, clap::Args)]
pub(crate) struct LabArgs {}

/// Called from `main` before any runtime or thread exists; returns the exit code of the program.
pub(crate) fn run(_: LabArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the lab is not in this build")
}
