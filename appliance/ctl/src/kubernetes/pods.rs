//! `dtnctl pods --engine kubernetes`: pods with a NIC of the appliance, one of them with all that is
//! known of it, and logs.

use super::{Reach, cluster::Cluster, standing, tables, view};
use crate::{
    answer::json,
    cli::Context,
    failure::{Done, Failure, Outcome},
    pods::shown_logs,
};
use dtn_api::Name;
use k8s_openapi::api::{
    core::v1::{Event, Pod},
    resource::v1::ResourceClaim,
};
use kube::api::{ListParams, LogParams};
use serde_json::{Map, Value, json};

/// Every pod of the namespace, or of all, that is a workload or has a claim of the appliance's.
pub(crate) async fn list(reach: &Reach, everywhere: bool, context: &Context) -> Outcome {
    let cluster = Cluster::find(reach).await?;
    let (pods, claims) = match everywhere {
        true => (cluster.all::<Pod>(), cluster.all::<ResourceClaim>()),
        false => (cluster.pods(), cluster.claims()),
    };
    let params = ListParams::default();
    let claims = claims.list(&params).await;
    let claims = claims.map_err(|error| cluster.failed("asking for the claims", error))?;
    let pods = pods.list(&params).await;
    let pods = pods.map_err(|error| cluster.failed("asking for the pods", error))?;
    let claims: Vec<&ResourceClaim> = claims.iter().filter(|c| view::concerns(c)).collect();
    let mut found = Vec::new();
    for pod in &pods {
        let own: Vec<&ResourceClaim> = claims
            .iter()
            .filter(|claim| claim.metadata.namespace == pod.metadata.namespace)
            .filter(|claim| view::belongs(claim, pod))
            .copied()
            .collect();
        if !own.is_empty() || view::is_workload(pod) {
            let standing = standing::of(pod, &own, &[]);
            found.push(view::of(pod, &own, standing.text()));
        }
    }
    if context.json {
        return json(&json!({ "items": found }));
    }
    let done = Done::text(tables::list(&found, context.now, everywhere));
    Ok(match found.is_empty() {
        true => done.next(format!(
            "start one: dtnctl deploy TEMPLATE --name NAME --slice NAME --nic dedicated{}",
            reach.options()
        )),
        false => done,
    })
}

/// One pod.
pub(crate) async fn show(reach: &Reach, name: &Name, context: &Context) -> Outcome {
    let cluster = Cluster::find(reach).await?;
    let pod = pod(&cluster, reach, name).await?;
    let claims = cluster.claims().list(&ListParams::default()).await;
    let claims = claims.map_err(|error| cluster.failed("asking for the claims", error))?;
    let claims: Vec<&ResourceClaim> = claims
        .iter()
        .filter(|claim| view::concerns(claim) && view::belongs(claim, &pod))
        .collect();
    let fields = format!("involvedObject.kind=Pod,involvedObject.name={name}");
    let events = cluster
        .events()
        .list(&ListParams::default().fields(&fields))
        .await;
    let events = match events {
        Ok(events) => events.items,
        // less is said then
        Err(kube::Error::Api(status)) if status.code == 403 => Vec::<Event>::new(),
        Err(error) => return Err(cluster.failed("asking for the events", error)),
    };
    let standing = standing::of(&pod, &claims, &events);
    let shown = view::of(&pod, &claims, standing.text());
    if context.json {
        return json(&json!(shown));
    }
    let done = Done::text(tables::shown(&shown, context.now));
    Ok(match standing.remedy {
        Some(remedy) => done.next(remedy),
        None => done,
    })
}

/// What the containers wrote. One that has not begun yet is told as that.
pub(crate) async fn logs(reach: &Reach, name: &Name, context: &Context) -> Outcome {
    let cluster = Cluster::find(reach).await?;
    let pod = pod(&cluster, reach, name).await?;
    let spec = pod.spec.clone().unwrap_or_default();
    let init = spec.init_containers.iter().flatten();
    let names: Vec<String> = init
        .chain(&spec.containers)
        .map(|c| c.name.clone())
        .collect();
    let mut logs = Map::new();
    for container in names {
        let params = LogParams {
            container: Some(container.clone()),
            ..LogParams::default()
        };
        let log = match cluster.pods().logs(name.as_str(), &params).await {
            Ok(log) => log,
            Err(kube::Error::Api(status)) if status.code == 400 => {
                format!("(nothing yet: {})\n", status.message)
            }
            Err(error) => {
                return Err(cluster.failed(format!("asking for the log of pod {name}"), error));
            }
        };
        logs.insert(container, Value::String(log));
    }
    let logs = Value::Object(logs);
    match context.json {
        true => json(&logs),
        false => Ok(Done::text(shown_logs(&logs))),
    }
}

async fn pod(cluster: &Cluster, reach: &Reach, name: &Name) -> Result<Pod, Failure> {
    let found = cluster.pods().get_opt(name.as_str()).await;
    let found = found.map_err(|error| cluster.failed(format!("asking for pod {name}"), error))?;
    found.ok_or_else(|| {
        Failure::because(format!(
            "there is no pod {name} in namespace {}",
            cluster.namespace
        ))
        .or_next(format!(
            "see which there are: dtnctl pods{}",
            reach.options()
        ))
    })
}
