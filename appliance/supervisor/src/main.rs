//! `dtnd`: the supervisor of one DTN.

use clap::Parser;
use dtn_api::{Problem, layered::Loaded, problem::Kind};
use dtn_service::{INVALID_CONFIG, reload::Reading};
use dtnd::{
    Places,
    config::{self, ConfigError, Setting, Sources},
    daemon,
    local_api::serve::another_runs,
    trial,
};
use std::{path::PathBuf, process::ExitCode};

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
    /// Only ask the dtnd of this process to read its configuration anew, and wait for the outcome
    #[arg(long, value_name = "PID")]
    reload: Option<i32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(pid) = arguments.reload {
        let file = Places::new(arguments.root).reload();
        return dtn_service::reload::command("dtnd", pid, &file);
    }
    // before there is another thread
    if let Err(e) = dtn_service::sockets::inherit() {
        eprintln!("dtnd: taking the sockets of the service manager: {e}");
        return ExitCode::FAILURE;
    }
    let sources = Sources::new(&arguments.config).with(&arguments.set);
    let places = Places::new(&arguments.root);
    // a second one, which will be refused, leaves the trial of the first alone
    let tries = !arguments.check_config && !another_runs(&places.socket());
    if tries {
        end_of_trial(&places);
    }
    let mut loaded = config::load_from(&sources);
    if loaded.is_err() && tries && take_back(&places, "it cannot be read") {
        loaded = config::load_from(&sources);
    }
    let loaded = match loaded {
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
            if tries {
                take_back(&places, "dtnd failed with it");
            }
            ExitCode::FAILURE
        }
    }
}

/// Ends a trial whose time is over, before the configuration is read. Without a log yet it is said on
/// standard error.
fn end_of_trial(places: &Places) {
    match alone(trial::at_start(places)) {
        Ok(trial::Found::Nothing) => {}
        Ok(trial::Found::Goes) => eprintln!("dtnd: the configuration is on trial still"),
        Ok(trial::Found::Back(why)) => {
            eprintln!("dtnd: the configuration on trial went back: {why}");
        }
        Err(problem) => eprintln!("dtnd: {problem}"),
    }
}

/// Takes back what is on trial; whether something was.
fn take_back(places: &Places, why: &str) -> bool {
    if !matches!(trial::running(places), Ok(Some(_))) {
        return false;
    }
    match alone(trial::back(places)) {
        Ok(_) => eprintln!("dtnd: the configuration on trial went back: {why}"),
        Err(problem) => eprintln!("dtnd: taking back the configuration on trial: {problem}"),
    }
    true
}

/// Carries out what only looks asynchronous, before and after there is a runtime.
fn alone<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|e| Problem::new(Kind::Internal, format!("a runtime: {e}")))?;
    runtime.block_on(work)
}

fn run(arguments: Arguments, loaded: Loaded<dtnd::Config>) -> anyhow::Result<()> {
    let log = dtn_service::log::begin("dtnd", &loaded.config.log).map_err(anyhow::Error::msg)?;
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
    let reading = Reading {
        file: Some(arguments.config),
        settings: arguments.set,
        values: loaded.values,
        log,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let places = Places::new(arguments.root);
    runtime.block_on(daemon::run(loaded.config, places, reading))
}
