//! `vdnd`: the controller of one VDN domain.

use clap::Parser;
use dtn_api::layered::Loaded;
use dtn_service::{INVALID_CONFIG, reload::Reading};
use std::{path::PathBuf, process::ExitCode};
use vdnd::config::{self, ConfigError, Setting, Sources};

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
    /// The configuration. Drop-ins are read from FILE.d/*.toml, of appliance.toml from
    /// appliance.d/*.toml
    #[arg(long, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    /// Set a field over all files, as log.level=debug; may be repeated
    #[arg(long, value_name = "PATH=VALUE")]
    set: Vec<Setting>,
    /// Only check the configuration
    #[arg(long)]
    check_config: bool,
    /// Only ask the vdnd of this process to read its configuration anew, and wait for the outcome
    #[arg(long, value_name = "PID")]
    reload: Option<i32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(pid) = arguments.reload {
        return dtn_service::reload::command("vdnd", pid, &vdnd::reload_file(&arguments.root));
    }
    // before there is another thread
    if let Err(e) = dtn_service::sockets::inherit() {
        eprintln!("vdnd: taking the sockets of the service manager: {e}");
        return ExitCode::FAILURE;
    }
    let sources = Sources::new(&arguments.config).with(&arguments.set);
    let loaded = match config::load_from(&sources) {
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
    let log = dtn_service::log::begin("vdnd", &loaded.config.log).map_err(anyhow::Error::msg)?;
    let reading = Reading {
        file: Some(arguments.config.clone()),
        settings: arguments.set.clone(),
        values: loaded.values,
        log,
    };
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
        let stop = dtn_service::stop::asked()?;
        vdnd::run_and_reload(loaded.config, &arguments.root, reading, stop).await
    })
}
