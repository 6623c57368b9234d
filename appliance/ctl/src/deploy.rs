//! `dtnctl deploy` and `undeploy`: a transfer pod from a template, and its way home. With the engine
//! `kubernetes` another file carries them out.

use crate::{
    answer::{json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    kubernetes::{self, Reach, Wishes},
    place::{CARRY_OUT, Daemon, Link},
    pods,
};
use dtn_api::{
    IfName, Name, Span,
    local::{DeployRequest, Pod, PodPhase},
    nic::NicClass,
    problem::Kind,
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Between two looks at a pod that is being made or taken down.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Options of `deploy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The template, a folder of the workload directory
    pub(crate) template: Name,
    /// Name of the pod
    #[arg(long)]
    pub(crate) name: Name,
    /// The slice it sends in; without one it is best effort
    #[arg(long, value_name = "NAME")]
    pub(crate) slice: Option<Name>,
    /// Class of NIC: dedicated (moved whole into the pod) or shared (a macvlan child)
    #[arg(long, value_name = "CLASS")]
    pub(crate) nic: NicClass,
    /// The NIC by name; any free one of the class when absent
    #[arg(long, value_name = "NIC")]
    pub(crate) device: Option<IfName>,
    /// A value over the template's own; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) set: Vec<(String, String)>,
    /// Only render and check; nothing is started
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(flatten)]
    pub(crate) wishes: Wishes,
}

/// Options of `undeploy`.
#[derive(Debug, clap::Args)]
pub(crate) struct UndeployArgs {
    /// Name of the pod
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Leave the transfer key for a pod of the same name
    #[arg(long, help_heading = kubernetes::HEADING)]
    pub(crate) keep_key: bool,
    /// Longest time until the pod is gone
    #[arg(long, help_heading = kubernetes::HEADING, value_name = "SPAN",
        default_value_t = Span::from_secs(CARRY_OUT.as_secs()))]
    pub(crate) timeout: Span,
}

/// `KEY=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

/// Pairs of an option, each of which may be given once.
pub(crate) fn once(
    option: &str,
    pairs: &[(String, String)],
) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for (key, value) in pairs {
        if all.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::Usage(format!("{option} {key} is given twice")));
        }
    }
    Ok(all)
}

/// Asks the supervisor, or the cluster, and follows the pod until it runs.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    if args.reach.cluster(&args.wishes.given())? {
        return kubernetes::deploy::run(args, context).await;
    }
    let values = once("--set", &args.set)?;
    let request = DeployRequest {
        template: args.template.clone(),
        name: args.name.clone(),
        values,
        slice: args.slice.clone(),
        nic_class: args.nic,
        nic: args.device.clone(),
        dry_run: args.dry_run,
    };
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    context.progress(format_args!(
        "deploying {} from {}",
        args.name, args.template
    ));
    let answer = link
        .post("/pods", &request)
        .await
        .map_err(|error| while_doing(format!("deploying pod {}", args.name), error))?;
    if args.dry_run {
        return rendered(&answer, context);
    }
    let (answer, pod) = follow(&link, answer, &args.name).await?;
    let command = context.place.command();
    let shown = match context.json {
        true => json(&answer)?.out,
        false => pods::shown(&pod, context.now),
    };
    if pod.phase == PodPhase::Running {
        return Ok(Done::text(shown).next(format!(
            "read its log: {command} pods logs {name}; take it down: {command} undeploy {name}",
            name = pod.name
        )));
    }
    let failure = Failure::because(format!(
        "pod {} is {}: {}",
        pod.name,
        pods::phase(pod.phase),
        pod.message
    ));
    Err(failure.showing(shown).or_next(format!(
        "read its log: {command} pods logs {name}; take it down: {command} undeploy {name}",
        name = pod.name
    )))
}

/// What a dry run answers: the pod as it would be made.
fn rendered(answer: &Value, context: &Context) -> Outcome {
    match answer {
        // a manifest as text is for eyes and for files as it is
        Value::String(text) if !context.json => Ok(Done::text(text.clone())),
        _ => json(answer),
    }
}

/// Looks at a pod until it runs or will not.
async fn follow(link: &Link, mut answer: Value, name: &Name) -> Result<(Value, Pod), Failure> {
    let mut pod: Pod = read(&answer, "the pod")?;
    let watch = async {
        while matches!(pod.phase, PodPhase::Preparing | PodPhase::Attaching) {
            tokio::time::sleep(LOOK_AGAIN).await;
            answer = link
                .get(&format!("/pods/{name}"))
                .await
                .map_err(|error| while_doing(format!("following pod {name}"), error))?;
            pod = read(&answer, "the pod")?;
        }
        Ok((answer, pod))
    };
    match tokio::time::timeout(CARRY_OUT, watch).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::because(format!(
            "pod {name} did not start within {} s",
            CARRY_OUT.as_secs()
        ))),
    }
}

/// Takes a pod down. One that is gone already is what was asked for.
pub(crate) async fn undeploy(args: &UndeployArgs, context: &Context) -> Outcome {
    let given = [
        ("--keep-key", args.keep_key),
        ("--timeout", args.timeout.duration() != CARRY_OUT),
    ];
    if args.reach.cluster(&given)? {
        return kubernetes::undeploy::run(args, context).await;
    }
    let name = &args.name;
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    context.progress(format_args!("taking {name} down"));
    match link.delete(&format!("/pods/{name}")).await {
        Ok(()) => {}
        Err(error) if error.is(Kind::NotFound) => {
            return Ok(Done::text(format!(
                "there is no pod {name}: nothing was left to take down\n"
            )));
        }
        Err(error) => return Err(while_doing(format!("taking pod {name} down"), error)),
    }
    let gone = async {
        loop {
            match link.get(&format!("/pods/{name}")).await {
                Err(error) if error.is(Kind::NotFound) => return Ok(()),
                Err(error) => return Err(while_doing(format!("following pod {name}"), error)),
                Ok(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    };
    match tokio::time::timeout(CARRY_OUT, gone).await {
        Ok(ended) => ended?,
        Err(_) => {
            return Err(Failure::because(format!(
                "pod {name} is still there after {} s",
                CARRY_OUT.as_secs()
            ))
            .or_next(format!(
                "see why: {} pods show {name}",
                context.place.command()
            )));
        }
    }
    Ok(
        Done::text(format!("pod {name} is gone, its NIC is home\n")).next(format!(
            "its slice stays reserved until it ends; to give it back: {} slice release NAME",
            context.place.command()
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_an_equals_sign() {
        assert_eq!(pair("args=-a=1"), Ok(("args".into(), "-a=1".into())));
        for bad in ["x", "=x", ""] {
            assert!(pair(bad).is_err(), "{bad:?}");
        }
    }
}
