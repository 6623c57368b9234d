//! What a cluster would make of a request, against what is there: everything is tried dry, so that
//! a refusal changes nothing.

use super::{
    FIELD_MANAGER,
    change::{self, Change, State},
    cluster::Cluster,
    ours,
};
use crate::{deploy::Args, failure::Failure};
use dtn_workloads::kubernetes::Manifests;
use kube::{
    Api, ResourceExt as _,
    api::{Patch, PatchParams, PostParams, ValidationDirective},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// Name of an object that is made dry, to see what the cluster would make of the request.
const PROBE: &str = "dtnctl-comparison";

/// What is there, and what would become of it.
pub(crate) struct Plan {
    /// Object by object.
    pub(crate) changes: Vec<Change>,
    /// The objects as the cluster would have them.
    pub(crate) objects: Vec<serde_json::Value>,
    /// The template of the claim has to be made anew: it is left of a pod that is gone.
    pub(crate) stale: bool,
}

impl Plan {
    /// An error when what is there was asked for otherwise.
    pub(crate) fn refuse_others(&self, args: &Args) -> Result<(), Failure> {
        let others = self
            .changes
            .iter()
            .filter_map(|change| match &change.state {
                State::Differs(fields) => Some(format!(
                    "{} {}:\n{}",
                    change.kind,
                    change.name,
                    change::lines(fields).trim_end()
                )),
                _ => None,
            });
        let others: Vec<String> = others.collect();
        if others.is_empty() || self.stale {
            return Ok(());
        }
        Err(Failure::because(format!(
            "pod {} is there already, and was asked for otherwise:\n{}",
            args.name,
            others.join("\n")
        ))
        .or_next(format!(
            "take it down first: dtnctl undeploy {}{}; or choose another name",
            args.name,
            args.reach.options()
        )))
    }
}

/// Tries everything dry.
pub(crate) async fn plan(cluster: &Cluster, made: &Manifests) -> Result<Plan, Failure> {
    let (claim, claim_object) = compare(
        cluster,
        &cluster.templates(),
        "ResourceClaimTemplate",
        &made.claim,
    )
    .await?;
    let (pod, pod_object) = compare(cluster, &cluster.pods(), "Pod", &made.pod).await?;
    let stale = pod == State::New && matches!(claim, State::Differs(_));
    let name = made.pod.name_any();
    let change = |kind, state| Change {
        kind,
        name: name.clone(),
        state,
    };
    Ok(Plan {
        changes: vec![change("ResourceClaimTemplate", claim), change("Pod", pod)],
        objects: vec![claim_object, pod_object],
        stale,
    })
}

/// Object of a kind that can be compared.
trait Object: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug {}
impl<K> Object for K where
    K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug
{
}

async fn compare<K: Object>(
    cluster: &Cluster,
    api: &Api<K>,
    kind: &'static str,
    wanted: &K,
) -> Result<(State, serde_json::Value), Failure> {
    let name = wanted.name_any();
    let looking = format!("looking for {kind} {name}");
    let live = api
        .get_opt(&name)
        .await
        .map_err(|error| cluster.failed(looking, error))?;
    if let Some(live) = &live {
        if live.meta().deletion_timestamp.is_some() {
            return Err(
                Failure::because(format!("{kind} {name} is being taken down"))
                    .or_next("try again when it is gone"),
            );
        }
        if !ours(live.meta().labels.as_ref()) {
            return Err(Failure::because(format!(
                "{kind} {name} is there already, and dtnctl did not make it"
            ))
            .or_next("choose another name"));
        }
    }
    let params = PatchParams {
        dry_run: true,
        ..applying()
    };
    let trying = format!("trying {kind} {name}");
    match (live, api.patch(&name, &params, &Patch::Apply(wanted)).await) {
        (None, Ok(planned)) => Ok((State::New, written(&planned))),
        (Some(live), Ok(planned)) => {
            let fields = change::between(&change::bare(&live), &change::bare(&planned));
            let state = match fields.is_empty() {
                true => State::Same,
                false => State::Differs(fields),
            };
            Ok((state, written(&planned)))
        }
        // a field that cannot change would
        (Some(live), Err(kube::Error::Api(status))) if status.code == 422 => {
            let fields = match probe(api, wanted).await {
                Some(probe) => change::without_notes(change::between(&change::bare(&live), &probe)),
                None => Vec::new(),
            };
            match fields.is_empty() {
                true => Err(cluster.refused(&trying, &status)),
                false => Ok((State::Differs(fields), written(wanted))),
            }
        }
        (_, Err(error)) => Err(cluster.failed(trying, error)),
    }
}

/// What the cluster makes of a request, with all that it fills in: the object under another name,
/// not kept.
async fn probe<K: Object>(api: &Api<K>, wanted: &K) -> Option<serde_json::Value> {
    let mut probe = wanted.clone();
    let name = probe.meta_mut().name.replace(PROBE.into());
    let params = PostParams {
        dry_run: true,
        field_manager: Some(FIELD_MANAGER.into()),
    };
    let mut filled = api.create(&params, &probe).await.ok()?;
    filled.meta_mut().name = name;
    Some(change::bare(&filled))
}

/// How everything is applied.
pub(crate) fn applying() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    }
}

/// An object for people: without the cluster's own book-keeping.
fn written(object: &impl Serialize) -> serde_json::Value {
    change::bare(object)
}
