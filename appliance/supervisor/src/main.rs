//! `dtnd`: the supervisor of one DTN.

use clap::Parser;
use dtn_api::layered::Loaded;
use dtnd::{
    Places,
    config::{self, ConfigError},
    daemon,
};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// The configuration is not valid (sysexits.h EX_CONFIG); the unit does not restart on it.
const INVALID_CONFIG: u8 = 78;

/// Supervisor of one DTN: knows its NICs, negotiates slices, prepares and runs transfer pods.
///
/// Exit status: 0 stopped when asked to, 1 failed, 2 wrong usage, 78 the configuration is absent or
/// not valid (every problem is listed with its field).
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where state and sockets are: ROOT/var/lib/dtn and ROOT/run/dtn
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
            eprintln!("dtnd: {e}");
            return match e {
                ConfigError::Unreadable { .. } => ExitCode::FAILURE,
                _ => ExitCode::from(INVALID_CONFIG),
            };
        }
    };
    if arguments.check_config {
        for warning in &loaded.warnings {
            eprintln!("dtnd: {warning}");
        }
        println!("{}: valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match run(arguments, loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dtnd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, loaded: Loaded<dtnd::Config>) -> anyhow::Result<()> {
    let wanted = std::env::var("DTN_LOG").unwrap_or_else(|_| loaded.config.log.clone());
    let filter: Targets = wanted
        .parse()
        .map_err(|e| anyhow::anyhow!("DTN_LOG {wanted:?} is not a level or filter: {e}"))?;
    tracing_subscriber::registry()
        .with(
            tracing_subscriber::fmt::layer()
                .with_ansi(std::io::stderr().is_terminal())
                // what cannot be logged is lost; told on standard error it would end the process,
                // when that is a file on a full disk
                .log_internal_errors(false)
                .with_writer(std::io::stderr),
        )
        .with(filter)
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
    runtime.block_on(daemon::run(loaded.config, Places::new(arguments.root)))
}
