//! What is to be done in ONOS, done: call after call, in the order of the plan.

use super::{
    Shared,
    client::Failure,
    hosts,
    ledger::Done,
    plan::{Make, Memory, Plan},
    rules::{Held, Key, Wanted},
};
use dtn_api::Name;
use serde_json::{Value, json};
use uuid::Uuid;

/// Rules in one call.
const BATCH: usize = 500;

/// Does what is to be done. What one call could not do is noted; when ONOS itself is away, the rest
/// is left.
pub(super) struct Apply<'a> {
    pub(super) shared: &'a Shared,
    pub(super) failures: Vec<(Option<Name>, Option<Uuid>, String)>,
    /// What became of meters.
    pub(super) done: Done,
}
impl<'a> Apply<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            failures: Vec::new(),
            done: Done::default(),
        }
    }
    /// What comes before rules: who is not wanted is shut out, hosts are told, meters asked for.
    pub(super) async fn begin(
        &mut self,
        plan: &Plan,
        hosts: hosts::Changes,
        memory: &mut Memory,
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
                memory.made.insert((make.device.clone(), make.guard), id);
                memory.ours.insert((make.device.clone(), id));
            }
        }
        Ok(())
    }
    /// Rules, and meters that no rule has any more.
    pub(super) async fn finish(&mut self, plan: &Plan, memory: &mut Memory) -> Result<(), Failure> {
        self.post(&plan.forward).await?;
        self.post(&plan.admit).await?;
        for (device, id) in &plan.retire {
            let done = self
                .shared
                .client
                .delete(&format!("/meters/{device}/{id}"), None)
                .await;
            let gone = done.is_ok();
            self.took(None, None, done)?;
            // from now on its number may be another's
            if gone {
                let at = (device.clone(), *id);
                memory.made.retain(|(of, _), id| (of, *id) != (&at.0, at.1));
                memory.ours.remove(&at);
                self.done.gone.push(at);
            }
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
    pub(super) async fn delete<'h>(
        &mut self,
        held: impl Iterator<Item = &'h Held>,
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
        let lost = match &done {
            Ok(_) => id.is_none(),
            // somebody in between may have answered for it
            Err(failure) => failure.status.is_none_or(|status| status >= 500),
        };
        match id {
            Some(id) => self.done.made.push((make.device.clone(), id, make.spec)),
            None if lost => self.done.lost.push((make.device.clone(), make.spec)),
            None => {}
        }
        self.took(
            Some(make.switch.clone()),
            Some(make.slice),
            done.map(|_| ()),
        )?;
        Ok(id)
    }
}
