//! What is written into claims, and told to people: the difference between what was decided and what
//! each claim says already, applied by server-side apply under a name of our own, so that what the
//! node writes beside it stays; and an event on the claim and on its pods when something new is said.

use crate::{
    claim::{Claim, DeviceKey, PodRef, Said},
    decide::{Reason, Told, Verdict, World},
};
use dtn_api::cluster::{DRIVER, NEGOTIATED};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event, resource::v1::ResourceClaim},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Under which name fields of claims are owned, and who reports events.
pub const MANAGER: &str = "dtn-cluster";
/// What the controller did, as an event says it.
const ACTION: &str = "Negotiate";
/// Same reason, other figures: told to people again after this.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// Longest note of an event (events.k8s.io/v1).
const LONGEST_NOTE: usize = 1000;

/// One claim to be written: the whole of what is ours in its status.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// Which claim, and in which version.
    pub claim: Claim,
    /// What each device is told, and since when that is so.
    pub devices: Vec<(DeviceKey, Verdict, Timestamp)>,
    /// What is new.
    pub news: Vec<News>,
}

/// What people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Of which device.
    pub key: DeviceKey,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub note: String,
    /// Whether the reason is another one than before, and not figures alone.
    pub turn: bool,
}

/// What differs from what the claims say.
pub fn deeds(world: &World, told: &[Told], now: Timestamp) -> Vec<Deed> {
    let mut of_claim: BTreeMap<usize, Vec<&Told>> = BTreeMap::new();
    for one in told {
        of_claim.entry(one.0).or_default().push(one);
    }
    let mut deeds = Vec::new();
    for (at, told) in of_claim {
        let claim = &world.claims[at];
        let many = claim.wishes.len() > 1;
        let mut devices = Vec::new();
        let mut news = Vec::new();
        let mut differs = false;
        for (_, key, verdict) in told {
            let Some(wish) = claim.wishes.iter().find(|wish| wish.key == *key) else {
                continue;
            };
            let said = wish.told.said.as_ref();
            let since = said
                .filter(|said| said.agreed == verdict.agreed())
                .map_or(now, |said| said.since);
            devices.push((key.clone(), verdict.clone(), since));
            let new_words = !said.is_some_and(|said| says(said, verdict));
            differs |= new_words || wish.told.agreement != verdict.agreement;
            if new_words {
                let whose = if many {
                    format!("request {}: ", wish.request)
                } else {
                    String::new()
                };
                news.push(News {
                    key: key.clone(),
                    reason: verdict.reason,
                    note: format!("{whose}{}", verdict.message),
                    turn: said.is_none_or(|said| said.reason != verdict.reason.as_str()),
                });
            }
        }
        if differs {
            deeds.push(Deed {
                claim: claim.clone(),
                devices,
                news,
            });
        }
    }
    deeds
}

fn says(said: &Said, verdict: &Verdict) -> bool {
    said.agreed == verdict.agreed()
        && said.reason == verdict.reason.as_str()
        && said.message == verdict.message
}

/// The configuration that is applied: everything that is ours in this claim's status. With the
/// version and the UID that were read: a claim that has changed since is decided about anew.
pub fn configuration(deed: &Deed) -> Value {
    let devices: Vec<Value> = deed
        .devices
        .iter()
        .map(|(key, verdict, since)| {
            let mut device = json!({
                "driver": DRIVER, "pool": key.pool, "device": key.device,
                "conditions": [{
                    "type": NEGOTIATED,
                    "status": if verdict.agreed() { "True" } else { "False" },
                    "reason": verdict.reason.as_str(),
                    "message": verdict.message,
                    "lastTransitionTime": crate::decide::second(*since),
                }],
            });
            if let Some(share) = &key.share {
                device["shareID"] = json!(share);
            }
            if let Some(agreement) = &verdict.agreement {
                device["data"] = json!({"agreement": agreement});
            }
            device
        })
        .collect();
    json!({
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "name": deed.claim.name, "namespace": deed.claim.namespace,
            "uid": deed.claim.uid, "resourceVersion": deed.claim.version,
        },
        "status": {"devices": devices},
    })
}

/// Applies it; the claim as it is then.
pub async fn apply(client: &Client, deed: &Deed) -> Result<ResourceClaim, kube::Error> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), &deed.claim.namespace);
    // forced: nobody else has a say in what is agreed
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(
        &deed.claim.name,
        &params,
        &Patch::Apply(configuration(deed)),
    )
    .await
}

/// Remembers what people were told, so that figures that change do not flood them.
#[derive(Debug, Default)]
pub struct Teller(BTreeMap<(String, DeviceKey), Duration>);
impl Teller {
    /// Whether this is to be told now, by a clock that only goes on.
    pub fn wants(&mut self, claim: &Claim, news: &News, now: Duration) -> bool {
        self.0.retain(|_, at| now.saturating_sub(*at) < SAY_AGAIN);
        let key = (claim.uid.clone(), news.key.clone());
        if !news.turn && self.0.contains_key(&key) {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

/// Tells what is new of a claim, on it and on its pods. Not by the library's recorder: that counts
/// the same reason again under its first note, and here the figures are the news.
pub async fn tell(client: &Client, claim: &Claim, news: &News, instance: &str) {
    let api: Api<Event> = Api::namespaced(client.clone(), &claim.namespace);
    for regarding in regarding(claim) {
        let event = event(claim, &regarding, news, instance, Timestamp::now());
        if let Err(e) = api.create(&PostParams::default(), &event).await {
            let whom = regarding.name.unwrap_or_default();
            tracing::warn!("telling {}/{whom} {:?}: {e}", claim.namespace, news.note);
        }
    }
}

/// The claim, and the pods that it is for.
fn regarding(claim: &Claim) -> Vec<ObjectReference> {
    let pod = |pod: &PodRef| ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name.clone()),
        namespace: Some(claim.namespace.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    };
    let own = ObjectReference {
        api_version: Some("resource.k8s.io/v1".into()),
        kind: Some("ResourceClaim".into()),
        name: Some(claim.name.clone()),
        namespace: Some(claim.namespace.clone()),
        uid: Some(claim.uid.clone()),
        ..ObjectReference::default()
    };
    std::iter::once(own)
        .chain(claim.pods.iter().map(pod))
        .collect()
}

fn event(
    claim: &Claim,
    regarding: &ObjectReference,
    news: &News,
    instance: &str,
    now: Timestamp,
) -> Event {
    let mut note = match regarding.kind.as_deref() {
        Some("Pod") => format!("claim {}: {}", claim.name, news.note),
        _ => news.note.clone(),
    };
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE)
            .rev()
            .find(|at| note.is_char_boundary(*at));
        note.truncate(end.unwrap_or(0));
    }
    let name = regarding.name.clone().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            namespace: Some(claim.namespace.clone()),
            // a name has at most 253 characters, and nobody else's event has this one
            name: Some(format!("{:.200}.{:x}", name, now.as_nanosecond())),
            ..ObjectMeta::default()
        },
        action: Some(ACTION.into()),
        event_time: Some(MicroTime(now)),
        note: Some(note),
        reason: Some(news.reason.as_str().into()),
        regarding: Some(regarding.clone()),
        reporting_controller: Some(format!("{DRIVER}/{MANAGER}")),
        reporting_instance: Some(instance.chars().take(128).collect()),
        type_: Some(match news.reason {
            Reason::Agreed => "Normal".into(),
            _ => "Warning".into(),
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{claim, decide::Slices};

    fn world(devices: Value) -> World {
        let claim: ResourceClaim = serde_json::from_value(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "net", "namespace": "atlas", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2027-01-10T06:00:00Z"},
            "spec": {},
            "status": {"devices": devices,
                "reservedFor": [{"resource": "pods", "name": "mover", "uid": "p1"}],
                "allocation": {"devices": {"results": [
                    {"driver": DRIVER, "pool": "n1", "device": "data0", "request": "nic",
                        "shareID": "s1"}]}}},
        }))
        .unwrap();
        World {
            claims: vec![claim::read(&claim).unwrap()],
            slices: Slices::Known(vec![]),
            tenants: BTreeMap::new(),
            nics: BTreeMap::new(),
        }
    }
    fn waits(message: &str) -> Verdict {
        Verdict {
            reason: Reason::Waiting,
            message: message.into(),
            agreement: None,
        }
    }
    fn told(world: &World, verdict: Verdict) -> Vec<Told> {
        vec![(0, world.claims[0].wishes[0].key.clone(), verdict)]
    }

    #[test]
    fn what_is_said_already_is_not_written_again() {
        let now: Timestamp = "2027-01-10T06:00:05Z".parse().unwrap();
        let empty = world(json!([]));
        let first = deeds(&empty, &told(&empty, waits("a")), now);
        assert_eq!(first.len(), 1);
        assert!(first[0].news[0].turn);
        let written = configuration(&first[0]);
        assert_eq!(written["metadata"]["resourceVersion"], "7");
        assert_eq!(written["status"]["devices"][0]["shareID"], "s1");
        assert!(written["status"]["devices"][0].get("data").is_none());
        // as the server keeps it
        let after = world(written["status"]["devices"].clone());
        assert!(deeds(&after, &told(&after, waits("a")), now).is_empty());
        let later = "2027-01-10T07:00:00Z".parse().unwrap();
        let other = deeds(&after, &told(&after, waits("b")), later);
        assert!(!other[0].news[0].turn);
        // the condition is as it was since then
        assert_eq!(other[0].devices[0].2, now);
    }

    #[test]
    fn figures_that_change_are_told_people_now_and_then_and_turns_at_once() {
        let claim = world(json!([])).claims[0].clone();
        let news = |turn: bool| News {
            key: claim.wishes[0].key.clone(),
            reason: Reason::Waiting,
            note: "x".into(),
            turn,
        };
        let mut teller = Teller::default();
        let s = Duration::from_secs;
        assert!(teller.wants(&claim, &news(true), s(0)));
        assert!(!teller.wants(&claim, &news(false), s(1)));
        assert!(teller.wants(&claim, &news(true), s(2)));
        assert!(!teller.wants(&claim, &news(false), s(20)));
        assert!(teller.wants(&claim, &news(false), s(32)));
    }

    #[test]
    fn the_claim_and_its_pod_are_told() {
        let claim = world(json!([])).claims[0].clone();
        let news = News {
            key: claim.wishes[0].key.clone(),
            reason: Reason::Waiting,
            note: "ü".repeat(2000),
            turn: true,
        };
        let all = regarding(&claim);
        let kinds: Vec<&str> = all.iter().filter_map(|r| r.kind.as_deref()).collect();
        assert_eq!(kinds, ["ResourceClaim", "Pod"]);
        let event = event(&claim, &all[1], &news, "i", Timestamp::now());
        assert!(event.note.unwrap().len() <= 1024);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
