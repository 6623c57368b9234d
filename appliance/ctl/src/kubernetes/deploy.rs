//! `dtnctl deploy --engine kubernetes`: a template as a pod with a claim, by server-side apply.
//!
//! Everything is tried dry first, so that a refusal changes nothing. What is there as it is asked for
//! is success; what is there otherwise is refused with each field, as with podman.

use super::{
    change::{self, State},
    cluster::Cluster,
    follow::{self, End, Followed},
    key,
    plan::{Plan, applying, plan},
    standing, tables, view,
    wishes::render,
};
use crate::{
    answer::json,
    cli::Context,
    deploy::Args,
    failure::{Done, Failure, Outcome},
};
use dtn_api::cluster::{DEDICATED_CLASS, SHARED_CLASS};
use dtn_workloads::kubernetes::Manifests;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch},
};
use serde_json::json;

/// Carries the verb out.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let outcome = deploy(args, context).await;
    match args.wishes.diff {
        true => outcome.map_err(Failure::in_a_comparison),
        false => outcome,
    }
}

async fn deploy(args: &Args, context: &Context) -> Outcome {
    let rendered = render(args, args.reach.namespace.clone(), context)?;
    let given = args.wishes.key()?;
    let cluster = match Cluster::find(&args.reach).await {
        Err(failure @ Failure::Unreachable { .. }) if args.dry_run => {
            return local(&rendered, &failure, context);
        }
        found => found?,
    };
    // the namespace is the context's when none is named
    let made = render(args, Some(cluster.namespace.clone()), context)?;
    if let Err(error) = class_is_there(&cluster, args, &made).await {
        match error {
            Failure::Unreachable { .. } if args.dry_run => {
                return local(&rendered, &error, context);
            }
            _ => return Err(error),
        }
    }
    let plan = plan(&cluster, &made).await?;
    if args.wishes.diff {
        return compared(&plan, context);
    }
    if args.dry_run {
        return dry(&plan, &made, context);
    }
    plan.refuse_others(args)?;
    context.progress(format_args!(
        "deploying {} from {} to {}, namespace {}",
        args.name, args.template, cluster.shown, cluster.namespace
    ));
    let key = key::settle(&cluster, &made, given).await?;
    apply(&cluster, &made, &plan).await?;
    let followed =
        follow::follow(&cluster, args.name.as_str(), args.wishes.timeout(), context).await?;
    told(followed, &made, key == Some(true), args, &cluster, context)
}

/// Without its DeviceClass a pod would stay pending with a reason that helps nobody.
async fn class_is_there(cluster: &Cluster, args: &Args, made: &Manifests) -> Result<(), Failure> {
    let devices = made.claim.spec.spec.devices.as_ref();
    let requests = devices.iter().flat_map(|d| d.requests.iter().flatten());
    let mut classes = requests.filter_map(|r| Some(r.exactly.as_ref()?.device_class_name.as_str()));
    let class = classes.next().unwrap_or(match args.nic {
        dtn_api::nic::NicClass::Dedicated => DEDICATED_CLASS,
        dtn_api::nic::NicClass::Shared => SHARED_CLASS,
    });
    match cluster.all::<DeviceClass>().get(class).await {
        Ok(_) => Ok(()),
        // who may not read it is not kept from deploying
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(()),
        Err(kube::Error::Api(status))
            if status.code == 404 && !status.message.contains("requested resource") =>
        {
            Err(Failure::because(format!(
                "the cluster has no DeviceClass {class}: the appliance is not installed in it: {}",
                cluster.shown
            ))
            .or_next("install it: kubectl apply -k config/kubernetes/base"))
        }
        Err(error) => Err(cluster.failed(format!("looking for DeviceClass {class}"), error)),
    }
}

async fn apply(cluster: &Cluster, made: &Manifests, plan: &Plan) -> Result<(), Failure> {
    let name = made.pod.name_any();
    let templates = cluster.templates();
    if plan.stale {
        let deleted = templates.delete(&name, &DeleteParams::default()).await;
        deleted.map_err(|error| cluster.failed(format!("replacing the claim of {name}"), error))?;
    }
    templates
        .patch(&name, &applying(), &Patch::Apply(&made.claim))
        .await
        .map_err(|error| cluster.failed(format!("applying the claim of {name}"), error))?;
    cluster
        .pods()
        .patch(&name, &applying(), &Patch::Apply(&made.pod))
        .await
        .map_err(|error| cluster.failed(format!("applying pod {name}"), error))?;
    Ok(())
}

/// What came of it.
fn told(
    followed: Followed,
    made: &Manifests,
    new_key: bool,
    args: &Args,
    cluster: &Cluster,
    context: &Context,
) -> Outcome {
    let (name, options) = (&args.name, args.reach.options());
    let standing = followed.standing;
    let Some(pod) = followed.pod else {
        return Err(Failure::because(match followed.end {
            End::Gone => format!("pod {name} was deleted while it was waited for"),
            _ => format!("nothing was heard of pod {name}"),
        })
        .or_next(format!("look for it: dtnctl pods{options}")));
    };
    let claims: Vec<&ResourceClaim> = followed.claims.iter().collect();
    let shown = view::of(&pod, &claims, standing.text());
    let out = match context.json {
        true => json(&json!(shown))?.out,
        false => tables::shown(&shown, context.now),
    };
    let log = format!(
        "read its log: dtnctl pods logs {name}{options}; take it down: dtnctl undeploy {name}{options}"
    );
    if standing.state == standing::State::Ready {
        return Ok(Done::text(out).next(match new_key {
            true => format!("{log}; {}", share_key(made, cluster)),
            false => log,
        }));
    }
    let waits = standing.text();
    let text = match followed.end {
        End::Left => format!("pod {name} is left as it is: {waits}"),
        End::Late => format!(
            "pod {name} is not ready after {} s and is left as it is: {waits}",
            args.wishes.timeout().as_secs()
        ),
        _ => format!("pod {name} will not be ready: {waits}"),
    };
    let folders = standing
        .remedy
        .as_ref()
        .filter(|_| waits.contains("hostPath"));
    let next = match (folders, standing.remedy.clone()) {
        (Some(_), _) => format!("make its folder on the node: {}", folder_command(made)),
        (None, Some(remedy)) => remedy,
        _ => format!(
            "it goes on by itself; wait again: the same command; look: dtnctl pods show {name}{options}; \
             take it down: dtnctl undeploy {name}{options}"
        ),
    };
    Err(Failure::because(text).showing(out).or_next(next))
}

/// How the other end of a transfer gets the key that was made.
fn share_key(made: &Manifests, cluster: &Cluster) -> String {
    let Some((secret, files)) = &made.key else {
        return String::new();
    };
    let file = files.first().map(String::as_str).unwrap_or_default();
    format!(
        "a transfer key was made, which the other end takes by --key {file}: kubectl get secret \
         {secret} --namespace {} --output jsonpath='{{.data.{}}}' | base64 --decode >{file}",
        cluster.namespace,
        file.replace('.', r"\.")
    )
}

/// What makes the pod's folders on a node.
fn folder_command(made: &Manifests) -> String {
    let uid = made.uid.unwrap_or_default();
    format!(
        "sudo install --directory --owner {uid} --group {uid} --mode 750 {}",
        made.folders.join(" ")
    )
}

/// What a dry run answers where no cluster does.
fn local(made: &Manifests, failure: &Failure, context: &Context) -> Outcome {
    let why = failure.message();
    let why = why.lines().next().unwrap_or_default();
    let why = why.trim_start_matches("dtnctl: ");
    if context.json {
        return json(&json!({
            "checked_by_cluster": false, "why": why, "objects": [&made.claim, &made.pod],
        }));
    }
    let text = made.yaml().map_err(anyhow::Error::new)?;
    Ok(Done::text(text).next(format!(
        "this was rendered here alone, and no cluster checked it: {why}"
    )))
}

fn dry(plan: &Plan, made: &Manifests, context: &Context) -> Outcome {
    if context.json {
        return json(&json!({
            "checked_by_cluster": true, "changes": plan.changes, "objects": plan.objects,
        }));
    }
    let mut text = String::new();
    for object in &plan.objects {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&serde_saphyr::to_string(object).map_err(anyhow::Error::new)?);
    }
    let mut next = "the cluster takes it; leave --dry-run out to start it".to_owned();
    if let Some((secret, _)) = &made.key {
        next.push_str(&format!(
            "; Secret {secret} with the transfer key is made then, if it is not there"
        ));
    }
    if !made.folders.is_empty() {
        next.push_str(&format!(
            "; the node needs its folder: {}",
            folder_command(made)
        ));
    }
    Ok(Done::text(text).next(next))
}

fn compared(plan: &Plan, context: &Context) -> Outcome {
    let out = match context.json {
        true => json(&json!({ "changes": plan.changes }))?.out,
        false => change::shown(&plan.changes),
    };
    match plan
        .changes
        .iter()
        .all(|change| change.state == State::Same)
    {
        true => Ok(Done::text(out)),
        false => Err(Failure::Differs { out }),
    }
}
