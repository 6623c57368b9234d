//! How a pod stands on its way to ready, in words: what it waits for, who has to do something, and
//! whether waiting can help. Pure, from the objects alone.

use super::view::{self, Interface};
use dtn_api::cluster;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{ContainerStatus, Event, Pod},
    resource::v1::ResourceClaim,
};

/// Whether waiting helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It may.
    Coming,
    /// It is ready.
    Ready,
    /// It does not: somebody has to do something.
    Hopeless,
}

/// How a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether waiting helps.
    pub(crate) state: State,
    /// What it waits for, a line each; the most telling first.
    pub(crate) lines: Vec<String>,
    /// What would help, when it is known.
    pub(crate) remedy: Option<String>,
}

/// Reasons of waiting containers that no waiting mends.
const HOPELESS: [&str; 3] = [
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
];
/// Reason of a condition that the claim itself is wrong.
const INVALID: &str = "InvalidParameters";

/// How a pod stands, from itself, its claims and what was reported of it.
pub(crate) fn of(pod: &Pod, claims: &[&ResourceClaim], events: &[Event]) -> Standing {
    let mut standing = Standing {
        state: State::Coming,
        lines: Vec::new(),
        remedy: None,
    };
    let status = pod.status.clone().unwrap_or_default();
    if pod.metadata.deletion_timestamp.is_some() {
        standing.hopeless("it is being taken down");
        return standing;
    }
    if let Some(phase @ ("Failed" | "Succeeded")) = status.phase.as_deref() {
        let why = [status.reason, status.message].into_iter().flatten();
        let why: Vec<String> = why.collect();
        let ended = if phase == "Failed" {
            "it failed"
        } else {
            "it ended"
        };
        standing.hopeless(&match why.is_empty() {
            true => ended.to_owned(),
            false => format!("{ended}: {}", why.join(": ")),
        });
        return standing;
    }
    if view::condition(pod, "Ready").is_some_and(|(ready, _)| ready) {
        standing.state = State::Ready;
        return standing;
    }
    let scheduled = view::condition(pod, "PodScheduled");
    let on_node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    match (&scheduled, &on_node) {
        (Some((false, why)), _) => standing.lines.push(format!("no node yet: {why}")),
        (_, None) => standing.lines.push("no node yet".into()),
        _ => {}
    }
    for interface in view::interfaces(claims) {
        standing.interface(&interface);
    }
    let init = status.init_container_statuses.iter().flatten();
    let all = init.chain(status.container_statuses.iter().flatten());
    for container in all {
        standing.container(container);
    }
    // a warning that the scheduler's condition repeats says nothing new
    let news = events.iter().filter(|event| {
        event.type_.as_deref() == Some("Warning")
            && event.reason.as_deref() != Some("FailedScheduling")
            && event.involved_object.uid == pod.metadata.uid
    });
    if let Some(event) = news.max_by_key(|event| seen(event)) {
        standing.warning(event);
    }
    if standing.lines.is_empty() {
        standing.lines.push(match status.phase.as_deref() {
            Some("Running") => "it runs, and is not ready yet".into(),
            _ => "its sandbox is being made".into(),
        });
    }
    standing
}

/// When an event was seen last.
fn seen(event: &Event) -> Timestamp {
    let series = event
        .series
        .as_ref()
        .and_then(|s| s.last_observed_time.as_ref());
    let at = [
        series.map(|time| time.0),
        event.last_timestamp.as_ref().map(|time| time.0),
        event.event_time.as_ref().map(|time| time.0),
    ];
    at.into_iter().flatten().max().unwrap_or_default()
}

impl Standing {
    fn hopeless(&mut self, line: &str) {
        self.state = State::Hopeless;
        self.lines.insert(0, line.to_owned());
    }

    /// What an interface waits for.
    fn interface(&mut self, interface: &Interface) {
        let name = &interface.ifname;
        let nic = match (&interface.nic, &interface.node) {
            (Some(nic), Some(node)) => format!("{name} (NIC {nic} of {node})"),
            _ => name.clone(),
        };
        // in the order in which they come; the first that does not hold is what is waited for
        for (kind, doing) in [
            (cluster::NEGOTIATED, "is being negotiated"),
            (cluster::PREPARED, "is being prepared"),
        ] {
            match interface.conditions.get(kind) {
                Some(condition) if condition.holds => {}
                Some(condition) => {
                    let line = format!("{nic}: {}", condition.message);
                    match condition.reason == INVALID {
                        true => self.hopeless(&line),
                        false => self.lines.push(line),
                    }
                    return;
                }
                // without a slice there is nothing to negotiate
                None if kind == cluster::NEGOTIATED && interface.slice.is_none() => {}
                None if interface.nic.is_none() => return,
                None => {
                    self.lines.push(format!("{nic} {doing}"));
                    return;
                }
            }
        }
    }

    fn container(&mut self, container: &ContainerStatus) {
        let Some(state) = &container.state else {
            return;
        };
        let name = &container.name;
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.clone().unwrap_or_default();
            // said of each container as long as the sandbox is not there
            if matches!(
                reason.as_str(),
                "ContainerCreating" | "PodInitializing" | ""
            ) {
                return;
            }
            let message = waiting.message.clone().unwrap_or_default();
            let line = format!("container {name}: {reason}: {message}");
            if HOPELESS.contains(&reason.as_str()) {
                self.hopeless(line.trim_end_matches([':', ' ']));
                if reason == "ErrImageNeverPull" {
                    self.remedy = Some(format!(
                        "bring the image {} onto the node: ctr -n k8s.io images import FILE",
                        container.image
                    ));
                }
            } else {
                self.lines
                    .push(line.trim_end_matches([':', ' ']).to_owned());
            }
        }
        if let Some(ended) = &state.terminated
            && ended.exit_code != 0
        {
            let why = ended.message.clone().or(ended.reason.clone());
            self.lines.push(format!(
                "container {name} ended with {}: {}",
                ended.exit_code,
                why.unwrap_or_default()
            ));
        }
    }

    fn warning(&mut self, event: &Event) {
        let message = event.message.clone().unwrap_or_default();
        let reason = event.reason.clone().unwrap_or_default();
        if reason == "FailedMount" && message.contains("hostPath type check failed") {
            self.remedy = Some("make the folder on the node, or choose another node".into());
        }
        self.lines.push(format!("{reason}: {message}"));
    }

    /// The lines as one text.
    pub(crate) fn text(&self) -> String {
        self.lines.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn standing(status: Value, claim: Option<Value>, events: Value) -> Standing {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "t1", "uid": "u1"}, "status": status,
            "spec": {"nodeName": "n1", "containers": []},
        }))
        .unwrap();
        let claim: Option<ResourceClaim> = claim.map(|c| serde_json::from_value(c).unwrap());
        let claims: Vec<&ResourceClaim> = claim.iter().collect();
        of(
            &pod,
            &claims,
            &serde_json::from_value::<Vec<Event>>(events).unwrap(),
        )
    }

    fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": message, "lastTransitionTime": "2027-01-10T05:00:00Z"})
    }

    fn claim(conditions: Value) -> Option<Value> {
        Some(json!({
            "metadata": {"name": "t1-nic-x"},
            "spec": {"devices": {
                "requests": [{"name": "nic", "exactly": {"deviceClassName": "dtn-shared"}}],
                "config": [{"opaque": {"driver": "dtn.appliance", "parameters": {
                    "apiVersion": "dtn.appliance/v1", "kind": "InterfaceRequest",
                    "interface": "data0", "slice": "lhc"}}}]}},
            "status": {
                "allocation": {"devices": {"results": [
                    {"request": "nic", "driver": "dtn.appliance", "pool": "n1", "device": "eth1"}]}},
                "devices": [{"driver": "dtn.appliance", "pool": "n1", "device": "eth1",
                    "conditions": conditions}]},
        }))
    }

    #[test]
    fn the_scheduler_s_reason_is_shown() {
        let status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled",
            "status": "False", "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 cannot allocate all claims."}]});
        let standing = standing(status, None, json!([]));
        assert_eq!(standing.state, State::Coming);
        assert_eq!(
            standing.text(),
            "no node yet: 0/2 nodes are available: 2 cannot allocate all claims."
        );
    }

    #[test]
    fn what_the_vdn_has_left_is_shown_and_a_wrong_claim_ends_the_wait() {
        let waits = condition(
            "Negotiated",
            false,
            "Waiting",
            "slice lhc has 2.0 Gb/s left",
        );
        let pending = json!({"phase": "Pending"});
        let told = standing(pending.clone(), claim(json!([waits])), json!([]));
        assert_eq!(
            told.text(),
            "data0 (NIC eth1 of n1): slice lhc has 2.0 Gb/s left"
        );
        assert_eq!(told.state, State::Coming);
        let wrong = condition(
            "Negotiated",
            false,
            "InvalidParameters",
            "/parameters/mtu: 9",
        );
        let told = standing(pending.clone(), claim(json!([wrong])), json!([]));
        assert_eq!(told.state, State::Hopeless);
        let agreed = condition("Negotiated", true, "Agreed", "");
        let told = standing(pending.clone(), claim(json!([agreed])), json!([]));
        assert_eq!(told.text(), "data0 (NIC eth1 of n1) is being prepared");
        let told = standing(pending, claim(json!([])), json!([]));
        assert_eq!(told.text(), "data0 (NIC eth1 of n1) is being negotiated");
    }

    #[test]
    fn the_latest_warning_of_this_pod_is_shown() {
        let event = |uid: &str, minute: u32, reason: &str, message: &str| {
            json!({"metadata": {}, "type": "Warning", "reason": reason, "message": message,
                "involvedObject": {"uid": uid},
                "lastTimestamp": format!("2027-01-10T05:{minute:02}:00Z")})
        };
        let events = json!([
            event(
                "u1",
                1,
                "FailedMount",
                "hostPath type check failed: /srv/x is not a directory"
            ),
            event("u1", 0, "FailedPrepareDynamicResources", "older"),
            event("u0", 9, "FailedMount", "of a pod before it"),
        ]);
        let told = standing(json!({"phase": "Pending"}), None, events);
        assert!(
            told.text().starts_with("FailedMount: hostPath"),
            "{}",
            told.text()
        );
        assert!(told.remedy.is_some());
    }

    #[test]
    fn images_that_never_come_and_pods_that_ended_are_not_waited_for() {
        let status = json!({"phase": "Pending", "containerStatuses": [{"name": "x", "image": "i",
            "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting":
            {"reason": "ErrImageNeverPull", "message": "not there"}}}]});
        let told = standing(status, None, json!([]));
        assert_eq!(told.state, State::Hopeless);
        assert!(told.remedy.unwrap().contains("image i"));
        let told = standing(
            json!({"phase": "Failed", "reason": "Evicted"}),
            None,
            json!([]),
        );
        assert_eq!(
            (told.state, told.text().as_str()),
            (State::Hopeless, "it failed: Evicted")
        );
        let ready =
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(standing(ready, None, json!([])).state, State::Ready);
        let runs = standing(json!({"phase": "Running"}), None, json!([]));
        assert_eq!(runs.text(), "it runs, and is not ready yet");
    }
}
