//! `vdn-chain`: the last plugin of a cluster's own network. It attaches what was prepared for the
//! claims of a pod, without Multus.
//!
//! Invariant: a pod for which no claim was prepared is never harmed. Whatever is wrong on our side
//! (no supervisor, no folders, a broken state), its result passes as it came, with no question to
//! anybody and in the time of one look at a folder. So STATUS says yes as well: a no would make the
//! whole node not ready, for pods that want nothing of us. What is wrong then is told by the
//! supervisor, which publishes no NICs that it cannot give, and to the pod that has a claim.

mod after;
pub mod install;

use crate::{
    attach,
    conf::{Conf, Ipam, NicChoice, Places, Valid},
    env::{Environment, Verb},
    error::{CniError, Code},
    failpoint, prepared,
    reconcile::{self, Leases},
    record, run,
    spec::{self, AddResult},
};
use dtn_api::{attachment::PreparedInterface, cluster, nic::NicClass};
use dtn_link::{Netns, atomic_file, macvlan::Mode};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Its name in a list of plugins.
pub const NAME: &str = "vdn-chain";

/// Longest entry of the book of claims that is read.
const LONGEST_CLAIM: u64 = 1 << 20;

/// `main` of the plugin.
pub fn main() -> ExitCode {
    run::log();
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if !words.is_empty() {
        return install::main(&words);
    }
    let Some(env) = Environment::read(|name| std::env::var_os(name)) else {
        eprintln!(
            "CNI plugin {NAME} {}: behind a cluster's own network, gives a pod the NICs of its claims\nCNI protocol versions supported: {}\n\n{}",
            env!("CARGO_PKG_VERSION"),
            spec::VERSIONS.join(", "),
            install::USAGE
        );
        return ExitCode::SUCCESS;
    };
    let mut version = None;
    let done = env.and_then(|env| {
        if env.verb == Verb::Version {
            return Ok(Some(spec::version_json()));
        }
        let input: Value = serde_json::from_slice(&run::read_input()?).map_err(|e| {
            CniError::new(
                Code::Decode,
                "reading the network configuration",
                e.to_string(),
            )
        })?;
        version = input["cniVersion"].as_str().map(str::to_owned);
        verb(&input, &env)
    });
    run::answer(done, version.as_deref())
}

fn verb(input: &Value, env: &Environment) -> Result<Option<String>, CniError> {
    match env.verb {
        Verb::Add => {
            let Some(previous) = input.get("prevResult") else {
                return Err(not_behind());
            };
            let claims = claims(&places(input), env.key())?;
            if claims.is_empty() {
                return Ok(Some(previous.to_string()));
            }
            let chain = Chain::parse(input, env.verb)?;
            let arrived = wait(add(&chain, env, &claims))?;
            let result = appended(previous, &chain.conf.version, &arrived);
            Ok(Some(result.to_string()))
        }
        Verb::Del => after::del(&places(input), env).map(|()| None),
        Verb::Check => {
            if input.get("prevResult").is_none() {
                return Err(not_behind());
            }
            wait(after::check(&places(input), env)).map(|()| None)
        }
        Verb::Gc => {
            let chain = Chain::parse(input, env.verb)?;
            wait(after::gc(&chain)).map(|()| None)
        }
        // see the file's first lines
        Verb::Status => Ok(None),
        Verb::Version => Ok(Some(spec::version_json())),
    }
}

fn not_behind() -> CniError {
    CniError::new(
        Code::InvalidConfig,
        "there is no prevResult",
        format!(
            "{NAME} gives a pod no network of its own: put it last in the plugins of the cluster's network"
        ),
    )
}

fn wait<T>(work: impl Future<Output = Result<T, CniError>>) -> Result<T, CniError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CniError::internal("starting", e))?
        .block_on(work)
}

/// Where to meet the supervisor; read before anything else of the configuration is judged.
fn places(input: &Value) -> Places {
    let given = |key: &str| input[key].as_str().map(Into::into);
    let usual = Places::below(std::path::Path::new("/"));
    Places {
        state: given("stateDir").unwrap_or(usual.state),
        run: given("runDir").unwrap_or(usual.run),
        socket: given("socket").unwrap_or(usual.socket),
    }
}

/// What was prepared for the claims of a pod. A file that is there is the pod's, so what is wrong
/// with it is the pod's trouble; anything else that is wrong is nobody's.
fn claims(places: &Places, key: &str) -> Result<Vec<PreparedInterface>, CniError> {
    let file = prepared::file(places, key);
    if let Err(e) = file.symlink_metadata() {
        if e.kind() != std::io::ErrorKind::NotFound {
            tracing::warn!("looking for {}: {e}; taken for not there", file.display());
        }
        return match is_promised(places, key) {
            // after a restart of the machine the kubelet does not ask for it again
            true => Err(CniError::new(
                Code::TryAgainLater,
                format!(
                    "a claim of pod {key} was prepared, and {} is not there",
                    file.display()
                ),
                "dtnd writes it again when it starts: is it running?",
            )),
            false => Ok(Vec::new()),
        };
    }
    let Some(prepared) = prepared::read(places, key)? else {
        return Ok(Vec::new());
    };
    let of_claims = prepared
        .interfaces
        .iter()
        .filter(|interface| prepared::is_of_a_claim(&prepared, interface));
    Ok(of_claims.cloned().collect())
}

/// Whether the supervisor's book has a claim of this pod. It outlives a restart of the machine, and
/// what was prepared does not: a pod must not start without its NIC because it was quicker than the
/// supervisor.
fn is_promised(places: &Places, key: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Entry {
        pod: Pod,
    }
    #[derive(serde::Deserialize)]
    struct Pod {
        uid: String,
    }
    let Ok(entries) = std::fs::read_dir(places.claims()) else {
        return false;
    };
    let mut files = entries.flatten().map(|entry| entry.path());
    files.any(|file| {
        let bytes = atomic_file::read(&file, LONGEST_CLAIM).ok().flatten();
        let entry = bytes.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        entry.is_some_and(|entry| entry.pod.uid == key)
    })
}

/// A configuration that can be acted on.
struct Chain {
    /// As an interface of a claim is attached; class is each one's own.
    conf: Conf,
    /// Name of the cluster's network.
    network: String,
    valid: Option<Vec<Valid>>,
}

impl Chain {
    fn parse(input: &Value, verb: Verb) -> Result<Self, CniError> {
        // of the cluster's network nothing but its name, its version and the list is ours
        let mut own = json!({"cniVersion": input["cniVersion"], "name": input["name"]});
        if let Some(valid) = input.get("cni.dev/valid-attachments") {
            own["cni.dev/valid-attachments"] = valid.clone();
        }
        let text = own.to_string();
        let read = Conf::parse(text.as_bytes(), NicClass::Shared, verb)?;
        Ok(Self {
            network: read.name.clone(),
            valid: read.valid.clone(),
            conf: Conf {
                name: cluster::NETWORK.to_owned(),
                behind: Some(read.name.clone()),
                nic: NicChoice::default(),
                mode: Mode::default(),
                ipam: Ipam::Own,
                places: places(input),
                ..read
            },
        })
    }
}

/// Attaches all of them or none.
async fn add(
    chain: &Chain,
    env: &Environment,
    claims: &[PreparedInterface],
) -> Result<Vec<AddResult>, CniError> {
    let places = &chain.conf.places;
    let before = record::read(places, env.key())?;
    let sandbox = env.netns.as_deref().and_then(|path| Netns::open(path).ok());
    let inode = sandbox.as_ref().map(Netns::inode);
    // a plugin that Multus calls may have attached it already
    let there = |claim: &PreparedInterface| {
        let found = before.as_ref().and_then(|r| r.of_prepared(&claim.ifname));
        found.is_some_and(|i| i.behind.is_none() && Some(i.netns_inode) == inode)
    };
    let mut arrived = Vec::new();
    let mut mine = Vec::new();
    for claim in claims.iter().filter(|claim| !there(claim)) {
        let conf = Conf {
            class: claim.class,
            ..chain.conf.clone()
        };
        let call = Environment {
            ifname: Some(claim.ifname.clone()),
            ..env.clone()
        };
        match attach::add(&conf, &call).await {
            Ok(result) => arrived.push(result),
            Err(error) => {
                let mut details = error.details.clone();
                for name in mine.iter().rev() {
                    // the leases stay: the pod is still prepared, and the next try gets the same
                    let home = reconcile::reconcile(places, env.key(), Some(*name), Leases::Keep);
                    if let Err(second) = home.await {
                        details.push_str(&format!("; and {second}"));
                    }
                }
                let message = format!("attaching {}: {}", claim.ifname, error.message);
                return Err(CniError::new(error.code, message, details));
            }
        }
        mine.push(&claim.ifname);
        failpoint!("chain-after-one");
    }
    Ok(arrived)
}

/// The result of the plugins before, with the interfaces that came. Their addresses are not in
/// `ips`: some runtimes (CRI-O) take every address there for the pod's own, and a cluster would send
/// the pod's traffic to its data interface. The claim's status has them.
fn appended(previous: &Value, version: &str, arrived: &[AddResult]) -> Value {
    let mut result = match previous {
        Value::Object(_) => previous.clone(),
        // libcni takes null for an empty result
        _ => json!({"cniVersion": version}),
    };
    if matches!(version, "0.1.0" | "0.2.0") {
        // these versions name no interfaces
        return result;
    }
    let shown = arrived.iter().filter_map(|result| {
        let bare = AddResult {
            interfaces: result.interfaces.clone(),
            ..AddResult::default()
        };
        bare.to_json(version).ok()?.get("interfaces").cloned()
    });
    let shown = shown.flat_map(|list| list.as_array().cloned().unwrap_or_default());
    match result["interfaces"].as_array_mut() {
        Some(list) => list.extend(shown),
        None => result["interfaces"] = Value::Array(shown.collect()),
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived() -> AddResult {
        AddResult {
            interfaces: vec![spec::Interface {
                name: "data0".into(),
                mac: Some("02:00:00:00:00:01".parse().unwrap()),
                mtu: Some(9000),
                sandbox: Some("/run/netns/x".into()),
                pci_id: None,
            }],
            ips: vec![spec::Address {
                address: "10.20.0.5/24".parse().unwrap(),
                gateway: None,
                interface: Some(0),
            }],
            ..AddResult::default()
        }
    }

    #[test]
    fn interfaces_are_put_behind_those_that_are_there_and_nothing_else_is_changed() {
        let previous = json!({
            "cniVersion": "1.1.0", "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/x"}],
            "ips": [{"address": "10.244.0.5/24", "interface": 1}], "odd": {"kept": 1},
        });
        let mut result = appended(&previous, "1.1.0", &[arrived()]);
        let last = result["interfaces"].as_array_mut().unwrap().pop().unwrap();
        assert_eq!(
            (&last["name"], &last["mtu"]),
            (&json!("data0"), &json!(9000))
        );
        assert_eq!(result, previous);
        assert!(
            appended(&previous, "0.4.0", &[arrived()])["interfaces"][2]
                .get("mtu")
                .is_none()
        );
    }

    #[test]
    fn results_without_interfaces_are_served_too() {
        let old = json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}});
        assert_eq!(appended(&old, "0.2.0", &[arrived()]), old);
        let bare = json!({"cniVersion": "1.0.0"});
        assert_eq!(
            appended(&bare, "1.0.0", &[arrived()])["interfaces"][0]["name"],
            "data0"
        );
        assert_eq!(appended(&Value::Null, "1.0.0", &[])["cniVersion"], "1.0.0");
    }
}
