//! `dtnctl undeploy --engine kubernetes`: the pod, its claim, the claim's template and the key go.
//!
//! The kubelet gives the claim's NIC back before it says that the pod is gone, so what is waited for
//! is the pod and then its claim.

use super::{cluster::Cluster, ours};
use crate::{
    cli::Context,
    deploy::UndeployArgs,
    failure::{Done, Failure, Outcome},
};
use dtn_workloads::kubernetes::{INSTANCE, MANAGED_BY};
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, time::Duration};

/// Between two looks at what is going.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Carries the verb out.
pub(crate) async fn run(args: &UndeployArgs, context: &Context) -> Outcome {
    let cluster = Cluster::find(&args.reach).await?;
    let name = args.name.as_str();
    context.progress(format_args!("taking {name} down in {}", cluster.shown));
    let doing = |what: &str| format!("taking {what} of {name} down");
    let pod = cluster
        .pods()
        .get_opt(name)
        .await
        .map_err(|error| cluster.failed(format!("looking for pod {name}"), error))?;
    if let Some(pod) = &pod {
        if !ours(pod.metadata.labels.as_ref()) {
            return Err(
                Failure::because(format!("dtnctl did not make pod {name}")).or_next(format!(
                    "who made it takes it down: kubectl delete pod {name} --namespace {}",
                    cluster.namespace
                )),
            );
        }
        let deleted = cluster.pods().delete(name, &DeleteParams::default()).await;
        gone_is_well(deleted).map_err(|error| cluster.failed(doing("the pod"), error))?;
    }
    let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.as_deref());
    // a pod that went without its claim has a NIC that is not home
    let waited = tokio::time::timeout(args.timeout.duration(), until_gone(&cluster, name, uid));
    let waited = match waited.await {
        Ok(ended) => ended?,
        Err(_) => return Err(still_there(&cluster, uid, args).await),
    };
    let mut taken = Vec::new();
    if pod.is_some() || waited {
        taken.push(format!("pod {name} is gone, its NIC is home"));
    }
    if remove(&cluster, &cluster.templates(), name, &doing("the claim")).await? {
        taken.push(format!("the template of its claim is gone: {name}"));
    }
    if !args.keep_key {
        let secret = format!("{name}-keys");
        if remove(&cluster, &cluster.secrets(), &secret, &doing("the key")).await? {
            taken.push(format!("its transfer key is gone: Secret {secret}"));
        }
    }
    if context.json {
        return crate::answer::json(&serde_json::json!({ "name": name, "taken_down": taken }));
    }
    if taken.is_empty() {
        return Ok(Done::text(format!(
            "there is no pod {name} in namespace {}: nothing was left to take down\n",
            cluster.namespace
        )));
    }
    Ok(Done::text(taken.join("\n") + "\n").next(
        "its data stays on the node, and its slice stays reserved until it ends; to give the slice \
         back: dtnctl slice release NAME",
    ))
}

/// Something that is gone already was what was asked for.
fn gone_is_well<T>(deleted: kube::Result<T>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Deletes an object of `dtnctl`'s; whether there was one.
async fn remove<K>(
    cluster: &Cluster,
    api: &Api<K>,
    name: &str,
    doing: &str,
) -> Result<bool, Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let failed = |error| cluster.failed(doing, error);
    // the labels are enough: a Secret's content is nobody's business here
    let there = api.get_metadata_opt(name).await.map_err(failed)?;
    match there {
        Some(there) if ours(there.metadata.labels.as_ref()) => {
            let deleted = api.delete(name, &DeleteParams::default()).await;
            gone_is_well(deleted).map_err(failed)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Until the pod and what was claimed for it are gone; whether there was something to wait for.
async fn until_gone(cluster: &Cluster, name: &str, uid: Option<&str>) -> Result<bool, Failure> {
    let mut waited = false;
    while !left(cluster, name, uid).await?.is_empty() {
        waited = true;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(waited)
}

/// What is still there of a pod, in words.
async fn left(cluster: &Cluster, name: &str, uid: Option<&str>) -> Result<Vec<String>, Failure> {
    let there = match uid {
        Some(_) => cluster.pods().get_opt(name).await,
        None => Ok(None),
    };
    let there = there.map_err(|error| cluster.failed(format!("following pod {name}"), error))?;
    if let Some(there) = there.filter(|there| there.metadata.uid.as_deref() == uid) {
        let node = there.spec.and_then(|spec| spec.node_name);
        return Ok(vec![match node {
            Some(node) => format!("pod {name}, which the kubelet of node {node} has to end"),
            None => format!("pod {name}"),
        }]);
    }
    // the template gave them its labels
    let (key, value) = MANAGED_BY;
    let params = ListParams::default().labels(&format!("{key}={value},{INSTANCE}={name}"));
    let claims = cluster.claims().list(&params).await;
    let doing = format!("following the claim of {name}");
    let claims = claims.map_err(|error| cluster.failed(doing, error))?;
    let shown = |claim: &ResourceClaim| format!("claim {}", claim.name_any());
    Ok(claims.iter().map(shown).collect())
}

async fn still_there(cluster: &Cluster, uid: Option<&str>, args: &UndeployArgs) -> Failure {
    let left = match left(cluster, args.name.as_str(), uid).await {
        Ok(left) => left.join(", "),
        Err(failure) => return failure,
    };
    Failure::because(format!(
        "still there after {} s: {left}",
        args.timeout.duration().as_secs()
    ))
    .or_next(format!(
        "it goes on by itself; wait again: dtnctl undeploy {}{}",
        args.name,
        args.reach.options()
    ))
}
