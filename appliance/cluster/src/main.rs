//! `dtn-cluster`: what the pods of a Kubernetes cluster ask of the VDN is negotiated here.

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use dtn_api::client::decode_invitation;
use dtn_cluster::{
    election::Times,
    health::{self, Health},
    identity,
    run::{self, Settings},
    vdn::Looks,
};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    io::{IsTerminal, Read},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Longest call to the domain's controller.
const CALL: Duration = Duration::from_secs(5);

/// Negotiates with a VDN domain for the pods of a Kubernetes cluster, before they start.
///
/// Exit status: 0 stopped when asked to, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// The folder that the identity is below: ROOT/var/lib/dtn/cluster/identity.json
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Join a domain with what `dtnctl cluster invite` printed; the identity is written below the root
    Join {
        /// The invitation itself, a file with it, or - for stdin
        invitation: String,
    },
    /// Run: watch claims, negotiate, write what was agreed
    Run(Box<Run>),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The identity, where it is not below the root: a Secret that is mounted
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// How the API server is reached; inside of a cluster that is known
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the Lease by which one copy leads; POD_NAMESPACE, else dtn-system
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Name of this copy; POD_NAME, else the name of the host
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    health: SocketAddr,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = std::env::var("DTN_LOG").ok();
    let filter = filter.and_then(|wanted| wanted.parse().ok());
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // what cannot be logged is lost, and does not end the process
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(filter.unwrap_or(Targets::new().with_default(Level::INFO)))
        .with(text)
        .init();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dtn-cluster: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    // the only provider: two would make the first TLS call panic
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        bail!("a TLS provider was there before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let usual = identity::file_below(&arguments.root);
    runtime.block_on(async {
        match arguments.verb {
            Verb::Join { invitation } => join(&usual, &invitation).await,
            Verb::Run(options) => serve(usual, *options).await,
        }
    })
}

async fn join(file: &std::path::Path, argument: &str) -> anyhow::Result<()> {
    let invitation = decode_invitation(&text_of(argument)?).map_err(anyhow::Error::msg)?;
    let domain = invitation.domain.clone();
    let identity = identity::join(file, invitation, jiff::Timestamp::now())
        .await
        .with_context(|| format!("joining domain {domain}"))?;
    println!(
        "cluster {} is in domain {}: {}",
        identity.cluster,
        identity.domain,
        file.display()
    );
    eprintln!(
        "next: kubectl -n dtn-system create secret generic dtn-cluster-identity \
         --from-file=identity.json={}",
        file.display()
    );
    Ok(())
}

/// The invitation that an argument means: its text, a file, or stdin.
fn text_of(argument: &str) -> anyhow::Result<String> {
    // an invitation is a few hundred bytes; a wrong file may be anything
    const LONGEST: u64 = 64 << 10;
    if argument.starts_with("dtn-invitation.") {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    match argument {
        "-" => std::io::stdin().take(LONGEST).read_to_string(&mut text),
        file => std::fs::File::open(file).and_then(|f| f.take(LONGEST).read_to_string(&mut text)),
    }
    .with_context(|| format!("reading the invitation from {argument:?}"))?;
    Ok(text)
}

async fn serve(usual: PathBuf, options: Run) -> anyhow::Result<()> {
    let file = options.identity.unwrap_or(usual);
    let identity = identity::load(&file)?.with_context(|| {
        format!(
            "no identity in {}: on the controller of the domain dtnctl cluster invite NAME, here \
             dtn-cluster join",
            file.display()
        )
    })?;
    let vdn = identity.client(CALL)?;
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let namespace = options.namespace.or_else(|| env("POD_NAMESPACE"));
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = options.name.or_else(|| env("POD_NAME")).or_else(host);
    let health = Arc::new(Health::default());
    let (address, _served) = health::serve(options.health, health.clone()).await?;
    let settings = Settings {
        client: client(options.kubeconfig).await?,
        vdn,
        namespace: namespace.unwrap_or_else(|| "dtn-system".into()),
        // a copy that starts anew under its old name is another one to the Lease
        me: format!(
            "{}_{}",
            name.unwrap_or_default().trim(),
            uuid::Uuid::new_v4().simple()
        ),
        times: Times::default(),
        looks: Looks::default(),
        health,
    };
    tracing::info!(
        cluster = %identity.cluster, domain = %identity.domain, url = identity.url,
        health = %address, "runs"
    );
    let stop = CancellationToken::new();
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let ask_to_stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        ask_to_stop.cancel();
    });
    run::run(settings, stop).await
}

async fn client(kubeconfig: Option<PathBuf>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(file) => {
            let read = Kubeconfig::read_from(&file)
                .with_context(|| format!("reading {} (--kubeconfig)", file.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("using {} (--kubeconfig)", file.display()))?
        }
        None => Config::infer().await.context(
            "finding the API server: run inside of a cluster, or give --kubeconfig FILE",
        )?,
    };
    Client::try_from(config).context("making a client of the API server")
}
