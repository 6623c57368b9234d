//! Runs the plugin for a pod as any CNI runtime would, and takes interfaces home again by the one
//! way that all share.

use crate::Host;
use dtn_api::{IfName, Problem, nic::NicClass, problem::Kind};
use dtn_cni::{
    CniError, conf,
    reconcile::{self, Homecoming, Leases},
};
use serde::Deserialize;
use serde_json::json;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

/// Name of the network; it stands in records and results.
pub(crate) const NETWORK: &str = "dtn";
/// How long a plugin may take: a move is 20 ms, a lock may be held for 20 s by a process that ends.
const DEADLINE: Duration = Duration::from_secs(40);
/// Longest output of a plugin, bytes.
const LARGEST: u64 = 1 << 20;
/// The plugin's code for "this very interface is attached to this very sandbox".
const ALREADY_ATTACHED: u32 = dtn_cni::error::Code::AlreadyAttached as u32;

/// One call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) uid: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) container: &'a str,
    pub(crate) ifname: &'a IfName,
    pub(crate) class: NicClass,
    pub(crate) netns: &'a Path,
    pub(crate) network: &'a str,
    /// Mode of a macvlan child; the plugin's default where none is given.
    pub(crate) mode: Option<&'a str>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// The plugin of a class.
fn plugin(class: NicClass) -> &'static str {
    match class {
        NicClass::Dedicated => "vdn-host-device",
        NicClass::Shared => "vdn-macvlan",
    }
}

/// ADD. Success when it was attached before.
pub(crate) async fn add(host: &Host, call: &Call<'_>) -> Result<(), Problem> {
    let name = plugin(call.class);
    let program = host.config().cni_bin_dir.join(name);
    let doing = format!("attaching {} to pod {} by {name}", call.ifname, call.pod);
    let failed =
        |why: &dyn std::fmt::Display| Problem::new(Kind::Internal, format!("{doing}: {why}"));
    let mut config = json!({
        "cniVersion": "1.1.0",
        "name": call.network,
        "type": name,
        "ipam": { "type": conf::OWN_IPAM },
        "stateDir": host.places.state(),
        "runDir": host.places.run(),
        "socket": host.places.socket(),
    });
    if let Some(mode) = call.mode.filter(|_| call.class == NicClass::Shared) {
        config["mode"] = json!(mode);
    }
    let arguments = format!(
        "IgnoreUnknown=1;K8S_POD_UID={};K8S_POD_NAME={};K8S_POD_NAMESPACE=default",
        call.uid, call.pod
    );
    let mut child = Command::new(&program)
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", call.container)
        .env("CNI_NETNS", call.netns)
        .env("CNI_IFNAME", call.ifname.as_str())
        .env("CNI_PATH", &host.config().cni_bin_dir)
        .env("CNI_ARGS", arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // its log goes where ours goes
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            let why = format!(
                "{doing}: starting {}: {e}: install the plugins there, or set cni.bin-dir",
                program.display()
            );
            // trying again does not install it
            Problem::new(Kind::StateConflict, why)
        })?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(&"it has no input or output"));
    };
    let exchange = async {
        // a plugin that refuses early does not read it all; its answer says why
        let _ = input.write_all(config.to_string().as_bytes()).await;
        drop(input);
        let mut said = Vec::new();
        output.take(LARGEST).read_to_end(&mut said).await?;
        Ok::<_, std::io::Error>((child.wait().await?, said))
    };
    let (status, said) = match timeout(DEADLINE, exchange).await {
        Ok(done) => done.map_err(|e| failed(&e))?,
        Err(_) => {
            let why = format!("no answer within {} s; it was ended", DEADLINE.as_secs());
            return Err(Problem::new(
                Kind::BackendUnavailable,
                format!("{doing}: {why}"),
            ));
        }
    };
    match (
        status.success(),
        serde_json::from_slice::<ErrorObject>(&said),
    ) {
        (true, _) => Ok(()),
        (false, Ok(error)) if error.code == ALREADY_ATTACHED => Ok(()),
        (false, Ok(error)) => Err(problem(&doing, &error)),
        (false, Err(_)) => Err(failed(&format!("it ended with {status} and no answer"))),
    }
}

fn problem(doing: &str, error: &ErrorObject) -> Problem {
    let kind = match error.code {
        11 => Kind::BackendUnavailable,
        7 | 101 | 103 => Kind::StateConflict,
        _ => Kind::BackendError,
    };
    let mut detail = format!("{doing}: {}", error.msg);
    if !error.details.is_empty() {
        detail.push_str(&format!(": {}", error.details));
    }
    Problem::new(kind, detail)
}

/// Takes home what a pod has, all of it or one interface, from the record alone.
pub(crate) async fn bring_home(
    host: &Host,
    key: &str,
    ifname: Option<&IfName>,
    leases: Leases,
) -> Result<Vec<Homecoming>, Problem> {
    let one = ifname.cloned();
    let home = in_thread(host, key, async move |places, key| {
        reconcile::reconcile(&places, &key, one.as_ref(), leases).await
    });
    Ok(told(key, home.await?))
}

/// Takes home what a pod has in sandboxes that are gone; nothing while its sandbox is there.
pub(crate) async fn rescue(host: &Host, key: &str) -> Result<Vec<Homecoming>, Problem> {
    let home = in_thread(host, key, async |places, key| {
        reconcile::abandoned(&places, &key).await
    });
    Ok(told(key, home.await?))
}

/// Gives back what a plugin asked for and did not come to use.
pub(crate) async fn unused(host: &Host, key: &str, ifname: &IfName) -> Result<(), Problem> {
    let ifname = ifname.clone();
    in_thread(host, key, async move |places, key| {
        reconcile::unused(&places, &key, &ifname).await
    })
    .await
}

/// Its locks wait in the thread, so it gets one of its own.
async fn in_thread<T, F>(host: &Host, key: &str, work: F) -> Result<T, Problem>
where
    T: Send + 'static,
    F: AsyncFnOnce(conf::Places, String) -> Result<T, CniError> + Send + 'static,
{
    let places = conf::Places::below(host.places.root());
    let owned = key.to_owned();
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work(places, owned)));
    let internal = |why: &dyn std::fmt::Display| {
        Problem::new(Kind::Internal, format!("taking home what {key} has: {why}"))
    };
    done.await
        .map_err(|e| internal(&e))?
        .map_err(|e| internal(&e))
}

fn told(key: &str, home: Vec<Homecoming>) -> Vec<Homecoming> {
    for one in &home {
        tracing::info!(pod = key, ifname = %one.ifname, nic = one.nic, home = ?one.home, "an interface left its pod");
        for note in &one.notes {
            tracing::warn!(pod = key, ifname = %one.ifname, "{note}");
        }
    }
    home
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_s_codes_become_problems() {
        for (code, kind) in [
            (11, Kind::BackendUnavailable),
            (101, Kind::StateConflict),
            (103, Kind::StateConflict),
            (999, Kind::BackendError),
        ] {
            let error = ErrorObject {
                code,
                msg: "NIC data0 is held".into(),
                details: "choose another".into(),
            };
            let found = problem("attaching", &error);
            assert!(found.is(kind), "{code}");
            assert_eq!(found.detail, "attaching: NIC data0 is held: choose another");
        }
    }
}
