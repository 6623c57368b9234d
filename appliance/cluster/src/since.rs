//! How long negotiations take: from the first round in which a leader saw a claim that is not agreed
//! until its agreement was written. Pure, by a clock that only goes on: what the API server and this
//! machine take for the time is never compared.

use crate::decide::{Told, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Claims that are not agreed, and since when that was seen.
#[derive(Debug, Default)]
pub struct Since(BTreeMap<String, Duration>);

impl Since {
    /// A round saw these claims. Those that are gone, or agreed, are forgotten.
    pub fn saw(&mut self, world: &World, told: &[Told], now: Duration) {
        let open: BTreeSet<&str> = told
            .iter()
            .filter_map(|(at, key, _)| {
                let claim = &world.claims[*at];
                let wish = claim.wishes.iter().find(|wish| wish.key == *key)?;
                let agreed = wish.told.said.as_ref().is_some_and(|said| said.agreed);
                (!agreed).then_some(claim.uid.as_str())
            })
            .collect();
        self.0.retain(|uid, _| open.contains(uid.as_str()));
        for uid in open {
            self.0.entry(uid.to_owned()).or_insert(now);
        }
    }

    /// The agreement of a claim was written: how long that took. `None` when it was agreed before.
    pub fn agreed(&mut self, uid: &str, now: Duration) -> Option<Duration> {
        let since = self.0.remove(uid)?;
        Some(now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        claim,
        decide::{Reason, Slices, Verdict},
    };
    use k8s_openapi::api::resource::v1::ResourceClaim;
    use serde_json::{Value, json};

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn world(status: Value) -> World {
        let claim: ResourceClaim = serde_json::from_value(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "net", "namespace": "atlas", "uid": "u1", "resourceVersion": "7",
                "creationTimestamp": "2030-01-01T00:00:00Z"},
            "spec": {},
            "status": {
                "allocation": {"devices": {"results": [
                    {"request": "nic", "driver": "dtn.appliance", "pool": "n1", "device": "data0"},
                ]}},
                "devices": status,
            },
        }))
        .unwrap();
        World {
            claims: claim::read(&claim).into_iter().collect(),
            slices: Slices::Known(Vec::new()),
            tenants: BTreeMap::new(),
            nics: BTreeMap::new(),
        }
    }
    fn told(world: &World) -> Vec<Told> {
        let key = world.claims[0].wishes[0].key.clone();
        let verdict = Verdict {
            reason: Reason::Waiting,
            message: String::new(),
            agreement: None,
        };
        vec![(0, key, verdict)]
    }

    #[test]
    fn it_counts_from_the_first_look_and_once() {
        let new = world(json!([]));
        let mut since = Since::default();
        since.saw(&new, &told(&new), S(10));
        since.saw(&new, &told(&new), S(13));
        assert_eq!(since.agreed("u1", S(15)), Some(S(5)));
        assert_eq!(since.agreed("u1", S(16)), None);
    }

    #[test]
    fn what_is_agreed_or_gone_is_forgotten() {
        let new = world(json!([]));
        let agreed = world(json!([{
            "driver": "dtn.appliance", "pool": "n1", "device": "data0",
            "conditions": [{"type": "Negotiated", "status": "True", "reason": "Agreed",
                "message": "", "lastTransitionTime": "2030-01-01T00:00:00Z"}],
        }]));
        let mut since = Since::default();
        since.saw(&agreed, &told(&agreed), S(1));
        assert_eq!(since.agreed("u1", S(2)), None);
        since.saw(&new, &told(&new), S(3));
        since.saw(&new, &[], S(4));
        assert_eq!(since.agreed("u1", S(5)), None);
    }
}
