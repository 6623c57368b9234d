//! One call of a plugin: environment and standard input in, JSON and exit code out.

use crate::{
    attach, check,
    conf::Conf,
    env::{Environment, Verb},
    error::{CniError, Code},
    gc,
    reconcile::{self, Leases},
    spec, status,
};
use dtn_api::nic::NicClass;
use std::{
    io::{Read, Write},
    process::ExitCode,
};
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Longest configuration that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// `main` of a plugin that attaches NICs of this class.
pub fn main(name: &str, class: NicClass) -> ExitCode {
    log();
    let Some(env) = Environment::read(|name| std::env::var_os(name)) else {
        eprintln!(
            "CNI plugin {name} {}: gives a pod a {class} NIC\nCNI protocol versions supported: {}",
            env!("CARGO_PKG_VERSION"),
            spec::VERSIONS.join(", ")
        );
        return ExitCode::SUCCESS;
    };
    let mut version = None;
    let done = env.and_then(|env| {
        if env.verb == Verb::Version {
            return Ok(Some(spec::version_json()));
        }
        let conf = Conf::parse(&read_input()?, class, env.verb)?;
        version = Some(conf.version.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CniError::internal("starting", e))?;
        runtime.block_on(verb(&conf, &env))
    });
    answer(done, version.as_deref())
}

/// Prints an answer: JSON on standard output, also for an error.
pub(crate) fn answer(done: Result<Option<String>, CniError>, version: Option<&str>) -> ExitCode {
    let (text, code) = match done {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!("{error}");
            (Some(error.to_json(version)), ExitCode::FAILURE)
        }
    };
    let Some(text) = text else {
        return code;
    };
    let mut out = std::io::stdout().lock();
    // a runtime that has gone reads nothing: its DEL comes from the record
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

pub(crate) fn log() {
    let filter = std::env::var("DTN_LOG").ok();
    let filter = filter.and_then(|wanted| wanted.parse().ok());
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // what cannot be logged is lost, and does not end the call
        .log_internal_errors(false);
    let started = tracing_subscriber::registry()
        .with(filter.unwrap_or(Targets::new().with_default(Level::WARN)))
        .with(text)
        .try_init();
    debug_assert!(started.is_ok());
}

pub(crate) fn read_input() -> Result<Vec<u8>, CniError> {
    let mut text = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(LONGEST + 1)
        .read_to_end(&mut text);
    let doing = "reading the network configuration from standard input";
    read.map_err(|e| CniError::new(Code::Io, doing, e.to_string()))?;
    if text.len() as u64 > LONGEST {
        return Err(CniError::new(Code::Io, doing, "it is longer than 4 MiB"));
    }
    Ok(text)
}

async fn verb(conf: &Conf, env: &Environment) -> Result<Option<String>, CniError> {
    let since = |version: &str| {
        if spec::has_verb(&conf.version, version) {
            return Ok(());
        }
        let message = format!("config version does not allow {}", env.verb.as_str());
        Err(CniError::new(
            Code::IncompatibleVersion,
            message,
            format!("it came with {version}"),
        ))
    };
    match env.verb {
        Verb::Add => {
            let result = attach::add(conf, env).await?;
            let json = result
                .to_json(&conf.version)
                .and_then(|json| serde_json::to_string_pretty(&json).map_err(|e| e.to_string()));
            match json {
                Ok(json) => Ok(Some(json)),
                Err(e) => {
                    // an interface that cannot be told to the runtime is of no use to it
                    let name = env.ifname.as_ref();
                    reconcile::reconcile(&conf.places, env.key(), name, Leases::Keep).await?;
                    Err(CniError::internal("writing the result", e))
                }
            }
        }
        Verb::Del => del(conf, env).await.map(|()| None),
        Verb::Check => {
            since("0.4.0")?;
            check::check(conf, env).await.map(|()| None)
        }
        Verb::Status => {
            since("1.1.0")?;
            status::status(conf).await.map(|()| None)
        }
        Verb::Gc => {
            since("1.1.0")?;
            gc::gc(conf, env).await.map(|()| None)
        }
        Verb::Version => Ok(Some(spec::version_json())),
    }
}

/// DEL fails only where a retry can help; a record that cannot be read is told and left.
async fn del(conf: &Conf, env: &Environment) -> Result<(), CniError> {
    let Some(ifname) = &env.ifname else {
        return Err(CniError::internal("detaching", "no interface was named"));
    };
    let done = match reconcile::key_of(&conf.places, env.key(), &env.container_id, ifname) {
        Ok(Some(key)) => {
            reconcile::reconcile(&conf.places, &key, Some(ifname), Leases::Release).await
        }
        // an ADD that failed may have asked for it
        Ok(None) => reconcile::unused(&conf.places, env.key(), ifname)
            .await
            .map(|()| Vec::new()),
        Err(e) => Err(e),
    };
    match done {
        Ok(home) => {
            for note in home.iter().flat_map(|home| &home.notes) {
                tracing::warn!("{note}");
            }
            Ok(())
        }
        Err(e) if e.code == Code::TryAgainLater => Err(e),
        Err(e) => {
            tracing::error!("{e}");
            Ok(())
        }
    }
}
