//! What is to be done in ONOS, done: call after call, in the order of the plan.

use super::{
    Shared,
    client::Failure,
    hosts,
    plan::{Make, Plan},
    rules::{Held, Key, Wanted},
};
use crate::fabric::program::GuardKey;
use dtn_api::Name;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Rules in one call.
const BATCH: usize = 500;

/// Does what is to be done. What one call could not do is noted; when ONOS itself is away, the rest
/// is left.
pub(super) struct Apply<'a> {
    pub(super) shared: &'a Shared,
    pub(super) failures: Vec<(Option<Name>, Option<Uuid>, String)>,
}
impl Apply<'_> {
    pub(super) async fn all(
        &mut self,
        plan: &Plan,
        hosts: hosts::Changes,
        made: &mut BTreeMap<(String, GuardKey), u32>,
    ) -> Result<(), Failure> {
        self.delete(plan.shut.iter()).await?;
        self.delete(plan.clear.iter()).await?;
        for path in &hosts.delete {
            let done = self.shared.client.delete(path, None).await;
            self.took(None, None, done)?;
        }
        // one at a time: ONOS refuses a second one while it does the first
        for body in &hosts.post {
            let done = self.shared.client.post("/hosts", body).await;
            self.took(None, None, done.map(|_| ()))?;
        }
        for make in &plan.make {
            if let Some(id) = self.make(make).await? {
                made.insert((make.device.clone(), make.guard), id);
            }
        }
        self.post(&plan.forward).await?;
        self.post(&plan.admit).await?;
        for (device, id) in &plan.retire {
            let done = self
                .shared
                .client
                .delete(&format!("/meters/{device}/{id}"), None)
                .await;
            self.took(None, None, done)?;
        }
        Ok(())
    }
    fn took(
        &mut self,
        switch: Option<Name>,
        slice: Option<Uuid>,
        done: Result<(), Failure>,
    ) -> Result<(), Failure> {
        match done {
            Err(failure) if failure.is_absence() => Err(failure),
            Err(failure) => {
                tracing::warn!("{failure}");
                self.failures.push((switch, slice, failure.to_string()));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
    pub(super) async fn delete<'a>(
        &mut self,
        held: impl Iterator<Item = &'a Held>,
    ) -> Result<(), Failure> {
        let list: Vec<Value> = held
            .map(|held| json!({"deviceId": held.key.device, "flowId": held.id}))
            .collect();
        for batch in list.chunks(BATCH) {
            let body = json!({"flows": batch});
            let done = self.shared.client.delete("/flows", Some(&body)).await;
            self.took(None, None, done)?;
        }
        Ok(())
    }
    pub(super) async fn post(&mut self, rules: &[(Key, Wanted)]) -> Result<(), Failure> {
        let path = format!("/flows?appId={}", self.shared.app);
        for batch in rules.chunks(BATCH) {
            let flows: Vec<Value> = batch.iter().map(|(key, rule)| rule.body(key)).collect();
            let done = self
                .shared
                .client
                .post(&path, &json!({"flows": flows}))
                .await;
            self.took(None, None, done.map(|_| ()))?;
        }
        Ok(())
    }
    async fn make(&mut self, make: &Make) -> Result<Option<u32>, Failure> {
        let body = json!({
            "deviceId": make.device,
            "unit": "KB_PER_SEC",
            // without it the burst is dropped without a word and is a second of the rate
            "burst": true,
            "bands": [{
                "type": "DROP",
                "rate": make.spec.rate_kbit,
                "burstSize": make.spec.burst_kbit,
                "prec": 0,
            }],
        });
        let done = self
            .shared
            .client
            .post(&format!("/meters/{}", make.device), &body)
            .await;
        let id = done
            .as_ref()
            .ok()
            .and_then(|(location, _)| location.as_ref()?.rsplit('/').next()?.parse::<u32>().ok());
        self.took(
            Some(make.switch.clone()),
            Some(make.slice),
            done.map(|_| ()),
        )?;
        Ok(id)
    }
}
