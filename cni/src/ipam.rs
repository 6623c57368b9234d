//! `vdn-ipam`: addresses from vDHCP for any other plugin, by way of the supervisor. It touches no
//! link; it hands on what was prepared, and queues the release.

use crate::{
    conf::{Conf, OWN_IPAM},
    env::{Environment, Verb},
    error::{CniError, Code},
    prepared, reconcile,
    record::LeaseMark,
    run, spec, supervisor, wish,
};
use dtn_api::{IfName, attachment::Prepared, cluster::ENGINE, nic::NicClass};
use std::process::ExitCode;

/// `main` of the IPAM plugin.
pub fn main() -> ExitCode {
    run::log();
    let Some(env) = Environment::read(|name| std::env::var_os(name)) else {
        eprintln!(
            "CNI IPAM plugin {OWN_IPAM} {}: addresses from vDHCP\nCNI protocol versions supported: {}",
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
        let conf = Conf::parse(&run::read_input()?, NicClass::Shared, env.verb)?;
        version = Some(conf.version.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CniError::internal("starting", e))?;
        runtime.block_on(verb(&conf, &env))
    });
    run::answer(done, version.as_deref())
}

async fn verb(conf: &Conf, env: &Environment) -> Result<Option<String>, CniError> {
    match env.verb {
        Verb::Add => {
            let result = addresses(conf, env).await?;
            let json = result.to_json(&conf.version);
            let json = json.map_err(|e| CniError::internal("writing the result", e))?;
            Ok(Some(json.to_string()))
        }
        Verb::Check => {
            let found = addresses(conf, env).await?;
            let previous = conf.previous.clone().unwrap_or_default();
            let lost = previous
                .ips
                .iter()
                .find(|ip| found.ips.iter().all(|known| known.address != ip.address));
            match lost {
                None => Ok(None),
                Some(ip) => Err(CniError::new(
                    Code::NotAsWanted,
                    format!("{} has no lease any more", ip.address),
                    "",
                )),
            }
        }
        Verb::Del => {
            if let Some(ifname) = &env.ifname {
                release(conf, env.key(), ifname).await?;
                let notice = dtn_api::local::Notice {
                    key: env.key().to_owned(),
                    ifname: ifname.clone(),
                };
                supervisor::detached(&conf.places.socket, &notice).await;
            }
            Ok(None)
        }
        Verb::Gc => Ok(None),
        Verb::Status => match supervisor::ready(&conf.places.socket).await {
            Ok(()) => Ok(None),
            Err(e) => Err(CniError::new(Code::NotAvailable, e.message, e.details)),
        },
        Verb::Version => Ok(Some(spec::version_json())),
    }
}

/// Queues what was prepared for an interface; it works without the supervisor. What a claim brought
/// stays: it is given back with the claim. What cannot be read is told and left: the lease ends with
/// its lifetime, and a retry would not help.
async fn release(conf: &Conf, key: &str, ifname: &IfName) -> Result<(), CniError> {
    let places = &conf.places;
    let prepared = match prepared::read(places, key) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(()),
        Err(e) => {
            tracing::error!("{e}");
            return Ok(());
        }
    };
    let of_a_pod = prepared
        .interfaces
        .iter()
        .filter(|i| i.ifname == *ifname && !prepared::is_of_a_claim(&prepared, i));
    let leases: Vec<_> = of_a_pod
        .flat_map(|interface| interface.leases.iter().map(LeaseMark::of))
        .collect();
    let done = match reconcile::queue_releases(places, &leases) {
        Ok(()) => reconcile::unused(places, key, ifname).await,
        Err(e) => Err(e),
    };
    done.map_err(|e| CniError {
        code: Code::TryAgainLater,
        ..e
    })
}

async fn addresses(conf: &Conf, env: &Environment) -> Result<spec::AddResult, CniError> {
    let Some(ifname) = &env.ifname else {
        return Err(CniError::internal("leasing", "no interface was named"));
    };
    let has = |prepared: &Prepared| prepared.interfaces.iter().any(|i| i.ifname == *ifname);
    let prepared = match prepared::read(&conf.places, env.key())? {
        Some(prepared) if has(&prepared) || prepared.pod.engine != ENGINE => prepared,
        // of a cluster's pod, what was prepared may be its claims' alone
        _ => supervisor::prepare(&conf.places.socket, &wish::question(conf, env, ifname)).await?,
    };
    let Some(interface) = prepared.interfaces.iter().find(|i| i.ifname == *ifname) else {
        let message = format!(
            "nothing was prepared for interface {ifname} of {}",
            env.key()
        );
        return Err(CniError::new(Code::InvalidConfig, message, ""));
    };
    let wish = wish::from_prepared(conf, interface, &prepared.pod);
    if env.verb == Verb::Add {
        for lease in &wish.leases {
            reconcile::withdraw_release(&conf.places, lease)?;
        }
    }
    // an IPAM plugin names no interfaces: its caller does
    let ips = wish
        .ips
        .into_iter()
        .map(|ip| spec::Address {
            interface: None,
            ..ip
        })
        .collect();
    Ok(spec::AddResult {
        interfaces: Vec::new(),
        ips,
        routes: wish.routes,
        dns: wish.dns,
    })
}
