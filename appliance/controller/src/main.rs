//! `vdnd`: the controller of one VDN domain.

use clap::Parser;
use dtn_api::layered::Loaded;
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use vdnd::config::{self, ConfigError};

/// The configuration is not valid (sysexits.h EX_CONFIG); the unit does not restart on it.
const INVALID_CONFIG: u8 = 78;

/// Controller of one VDN domain: slices, leases, other domains.
///
/// Exit status: 0 stopped when asked to, 1 failed, 2 wrong usage, 78 the configuration is absent or
/// not valid (every problem is listed with its field).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where state and sockets are: ROOT/var/lib/dtn/vdn and ROOT/run/dtn
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The configuration; drop-ins are read from FILE.d/*.toml
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// Only check the configuration
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let loaded = match config::load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(e) => {
            eprintln!("vdnd: {e}");
            return match e {
                ConfigError::Unreadable { .. } => ExitCode::FAILURE,
                _ => ExitCode::from(INVALID_CONFIG),
            };
        }
    };
    if arguments.check_config {
        for warning in &loaded.warnings {
            eprintln!("vdnd: {warning}");
        }
        println!("{}: valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match run(&arguments, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vdnd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, loaded: Loaded<vdnd::Config>) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("DTN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // what cannot be logged is lost; told on standard error it would end the process, when that
        // is a file on a full disk
        .log_internal_errors(false)
        .init();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    // the only provider: two would make the first TLS call panic
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("a TLS provider was there before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let ask_to_stop = stop.clone();
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            ask_to_stop.cancel();
        });
        vdnd::run(loaded.config, &arguments.root, stop).await
    })
}
