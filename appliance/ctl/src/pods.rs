//! `dtnctl pods`: the transfer pods of this host, one of them with all its interfaces, and logs. With
//! the engine `kubernetes` another file answers.

use crate::{
    answer::{items, json, read},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    kubernetes::{self, Reach},
    place::{Daemon, LOOK_UP},
    table::{Table, pairs},
    wording::{distance, instant, rate_or_dash},
};
use dtn_api::{
    Name,
    client::ClientError,
    local::{Pod, PodPhase},
    problem::Kind,
};
use jiff::Timestamp;
use serde_json::Value;

/// Options of `pods`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List them (the default)
    List {
        /// Of all namespaces
        #[arg(long, short = 'A', help_heading = kubernetes::HEADING)]
        all_namespaces: bool,
    },
    /// One pod: its interfaces, containers and sandbox
    Show {
        /// Its name
        name: Name,
    },
    /// What its containers wrote
    Logs {
        /// Its name
        name: Name,
    },
}

/// Asks the supervisor, or the cluster.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    let verb = args.verb.unwrap_or(Verb::List {
        all_namespaces: false,
    });
    let everywhere = matches!(
        verb,
        Verb::List {
            all_namespaces: true
        }
    );
    let reach = &args.reach;
    if reach.cluster(&[("--all-namespaces", everywhere)])? {
        return match verb {
            Verb::List { .. } => kubernetes::pods::list(reach, everywhere, context).await,
            Verb::Show { name } => kubernetes::pods::show(reach, &name, context).await,
            Verb::Logs { name } => kubernetes::pods::logs(reach, &name, context).await,
        };
    }
    match verb {
        Verb::List { .. } => list(context).await,
        Verb::Show { name } => show(&name, context).await,
        Verb::Logs { name } => logs(&name, context).await,
    }
}

async fn list(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .list("/pods")
        .await
        .map_err(|error| while_doing("asking for the pods", error))?;
    if context.json {
        return json(&answer);
    }
    let pods: Vec<Pod> = items(&answer, "the pods")?;
    let done = Done::text(shown_list(&pods, context.now));
    Ok(if pods.is_empty() {
        done.next(format!(
            "start one: {} deploy TEMPLATE --name NAME --slice NAME --nic dedicated",
            context.place.command()
        ))
    } else {
        done
    })
}

async fn show(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .get(&format!("/pods/{name}"))
        .await
        .map_err(|error| unknown(format!("asking for pod {name}"), error, context))?;
    if context.json {
        return json(&answer);
    }
    let pod: Pod = read(&answer, "the pod")?;
    Ok(Done::text(shown(&pod, context.now)))
}

async fn logs(name: &Name, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .get(&format!("/pods/{name}/logs"))
        .await
        .map_err(|error| unknown(format!("asking for the log of pod {name}"), error, context))?;
    if context.json {
        return json(&answer);
    }
    Ok(Done::text(shown_logs(&answer)))
}

fn unknown(doing: String, error: ClientError, context: &Context) -> Failure {
    let missing = error.is(Kind::NotFound);
    let failure = while_doing(doing, error);
    match missing {
        true => failure.or_next(format!(
            "see which there are: {} pods",
            context.place.command()
        )),
        false => failure,
    }
}

/// A phase in a word; the ones that need somebody are loud.
pub(crate) fn phase(phase: PodPhase) -> &'static str {
    match phase {
        PodPhase::Preparing => "preparing",
        PodPhase::Attaching => "attaching",
        PodPhase::Running => "running",
        PodPhase::Degraded => "DEGRADED",
        PodPhase::Removing => "removing",
        PodPhase::Failed => "FAILED",
    }
}

fn shown_list(pods: &[Pod], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "POD",
        "TEMPLATE",
        "PHASE",
        "NIC",
        "ADDRESSES",
        "SLICE",
        "PACED TO",
        "SINCE",
        "NOTE",
    ]);
    for pod in pods {
        let mut first = [
            pod.name.to_string(),
            pod.template.to_string(),
            phase(pod.phase).to_owned(),
        ];
        let mut last = [distance(pod.created_at, now), pod.message.clone()];
        let none = vec![[const { String::new() }; 4]];
        let interfaces: Vec<[String; 4]> = pod
            .interfaces
            .iter()
            .map(|one| {
                let slice = one.slice.as_ref().map(ToString::to_string);
                [
                    format!("{} ({})", one.nic, one.class),
                    one.ips.join(" "),
                    slice.unwrap_or_default(),
                    rate_or_dash(one.rate),
                ]
            })
            .collect();
        for cells in if interfaces.is_empty() {
            none
        } else {
            interfaces
        } {
            table.row(
                first
                    .iter()
                    .cloned()
                    .chain(cells)
                    .chain(last.iter().cloned()),
            );
            // further interfaces of the same pod stand below the first
            first.fill(" ".into());
            last.fill(" ".into());
        }
    }
    table.print("no pods")
}

/// One pod with everything that is known of it.
pub(crate) fn shown(pod: &Pod, now: Timestamp) -> String {
    let containers: Vec<String> = pod
        .containers
        .iter()
        .map(|(name, state)| format!("{name}: {state}"))
        .collect();
    let mut rows = vec![
        ("pod", pod.name.to_string()),
        ("phase", phase(pod.phase).to_owned()),
        ("template", pod.template.to_string()),
        ("uid", pod.uid.clone()),
        ("asked for", instant(pod.created_at, now)),
        ("containers", containers.join("\n")),
        ("sandbox", pod.netns.clone()),
    ];
    if !pod.message.is_empty() {
        rows.push(("note", pod.message.clone()));
    }
    let mut text = pairs(&rows);
    let mut table = Table::new(&["INTERFACE", "NIC", "ADDRESSES", "MTU", "SLICE", "PACED TO"]);
    for one in &pod.interfaces {
        table.row([
            one.ifname.to_string(),
            format!("{} ({})", one.nic, one.class),
            one.ips.join(" "),
            one.mtu.to_string(),
            one.slice
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            rate_or_dash(one.rate),
        ]);
    }
    text.push('\n');
    text.push_str(&table.print("no interfaces"));
    text
}

/// Logs are text, or text by container.
pub(crate) fn shown_logs(answer: &Value) -> String {
    match answer {
        Value::String(text) => ended(text),
        Value::Object(containers) => {
            let mut text = String::new();
            for (name, log) in containers {
                let log = log.as_str().map_or_else(|| log.to_string(), str::to_owned);
                text.push_str(&format!("==> {name} <==\n{}", ended(&log)));
            }
            text
        }
        Value::Null => String::new(),
        other => ended(&other.to_string()),
    }
}

fn ended(text: &str) -> String {
    match text.is_empty() || text.ends_with('\n') {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "name": "mover", "uid": "3f9c", "template": "xrootd-server", "phase": "running",
            "interfaces": [
                {"ifname": "net1", "class": "dedicated", "nic": "data0",
                 "ips": ["10.64.0.2/24", "fd64::2/64"], "mtu": 9000, "slice": "lhc",
                 "rate": "600Mbit"},
                {"ifname": "net2", "class": "shared", "nic": "data1", "ips": [], "mtu": 1500},
            ],
            "containers": {"xrootd": "running", "mover": "exited (0)"},
            "netns": "/run/dtn/netns/3f9c", "created_at": "2027-01-10T05:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn every_interface_has_a_line() {
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        let mut lost = pod();
        lost.phase = PodPhase::Degraded;
        lost.interfaces.clear();
        lost.message = "its sandbox was lost; attaching again".into();
        insta::assert_snapshot!("pods_list", shown_list(&[pod(), lost], now));
        insta::assert_snapshot!("pods_show", shown(&pod(), now));
    }

    #[test]
    fn logs_are_told_apart_by_container() {
        let logs = json!({"a": "one\n", "b": "two"});
        assert_eq!(shown_logs(&logs), "==> a <==\none\n==> b <==\ntwo\n");
        assert_eq!(shown_logs(&json!("x")), "x\n");
        assert_eq!(shown_logs(&json!(null)), "");
    }
}
