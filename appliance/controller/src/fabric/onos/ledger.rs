//! Which meters in ONOS are this controller's, written down before they are asked for, so that one
//! that no rule names is found again and given back. ONOS has all meters that come over REST under one
//! name, and gives a meter its number only in the answer: who ends before, or loses the answer, knows
//! what was asked for and which meters there were, and no more.

use super::{
    plan::{Memory, Plan},
    survey::{Meter, Survey},
};
use crate::{fabric::program::MeterSpec, whole_file};
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

/// How what is written down is written.
const VERSION: u32 = 1;

/// A meter of this controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    device: String,
    id: u32,
    rate_kbit: u32,
    burst_kbit: u32,
}
/// Meters of one kind on one device that were asked for and whose numbers are not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    device: String,
    rate_kbit: u32,
    burst_kbit: u32,
    number: usize,
    /// The meters of that kind that were there before.
    before: BTreeSet<u32>,
    /// When it was read or written here.
    #[serde(skip, default = "Instant::now")]
    since: Instant,
}
impl Own {
    fn of(at: &(String, u32), spec: MeterSpec) -> Self {
        Self {
            device: at.0.clone(),
            id: at.1,
            rate_kbit: spec.rate_kbit,
            burst_kbit: spec.burst_kbit,
        }
    }
    fn spec(&self) -> MeterSpec {
        MeterSpec {
            rate_kbit: self.rate_kbit,
            burst_kbit: self.burst_kbit,
        }
    }
}
impl Asked {
    fn is(&self, device: &str, spec: MeterSpec) -> bool {
        self.device == device && self.spec() == spec
    }
    fn spec(&self) -> MeterSpec {
        MeterSpec {
            rate_kbit: self.rate_kbit,
            burst_kbit: self.burst_kbit,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    meters: BTreeSet<Own>,
    asked: Vec<Asked>,
}
impl Default for Written {
    fn default() -> Self {
        Self {
            version: VERSION,
            meters: BTreeSet::new(),
            asked: Vec::new(),
        }
    }
}

/// What became of what was to be done with meters.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) made: Vec<(String, u32, MeterSpec)>,
    /// Asked for, and no answer that says what became of it.
    pub(super) lost: Vec<(String, MeterSpec)>,
    pub(super) gone: Vec<(String, u32)>,
}

/// What is written down, and where.
#[derive(Debug)]
pub(super) struct Ledger {
    file: PathBuf,
    /// How long a meter that may be ours must be seen in nobody's use before it is taken for ours.
    settling: Duration,
    /// What is known, and what of it is in the file.
    known: Written,
    written: Written,
    /// When what was left of an earlier time was looked for first.
    began: Option<Instant>,
    /// Meters that may be ours, and since when nobody is seen to use them.
    idle: BTreeMap<(String, u32), Instant>,
}

impl Ledger {
    /// As it was left; empty where there is none.
    pub(super) fn read(file: &Path, settling: Duration) -> anyhow::Result<Self> {
        let doing = || {
            format!(
                "reading which meters in ONOS are ours from {}",
                file.display()
            )
        };
        let written = match fs::read(file) {
            Ok(bytes) => parse(&bytes).with_context(doing)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Written::default(),
            Err(e) => return Err(e).with_context(doing),
        };
        Ok(Self {
            file: file.to_owned(),
            settling,
            known: written.clone(),
            written,
            began: None,
            idle: BTreeMap::new(),
        })
    }

    /// Tells the memory which meters are ours that no rule names; in words, what cannot be told apart.
    pub(super) fn recall(
        &mut self,
        survey: &Survey,
        memory: &mut Memory,
        now: Instant,
    ) -> Vec<String> {
        let began = *self.began.get_or_insert(now);
        let named: BTreeSet<(&str, u32)> = survey
            .flows
            .iter()
            .filter_map(|held| Some((held.key.device.as_str(), held.meter?)))
            .collect();
        let unused = |device: &str, id: u32, meter: &Meter| {
            meter.references == 0 && !named.contains(&(device, id))
        };
        // the number may be another's by now, which then is of another kind or in use; ONOS counts what
        // is in use a little later
        let late = now.duration_since(began) >= 2 * self.settling;
        self.known.meters.retain(|own| {
            let at = (own.device.clone(), own.id);
            let meter = survey
                .meters
                .get(&at)
                .filter(|m| m.spec == Some(own.spec()));
            if meter.is_some_and(|m| unused(&own.device, own.id, m)) {
                memory.ours.insert(at.clone());
            }
            meter.is_some() && (!late || memory.ours.contains(&at))
        });
        let mut said = Vec::new();
        let mut idle = BTreeMap::new();
        for asked in &mut self.known.asked {
            let spec = asked.spec();
            let found: Vec<(String, u32)> = survey
                .meters
                .iter()
                .filter(|(at, meter)| {
                    at.0 == asked.device
                        && meter.spec == Some(spec)
                        && !asked.before.contains(&at.1)
                        && !memory.ours.contains(*at)
                        && unused(&at.0, at.1, meter)
                })
                .map(|(at, _)| at.clone())
                .collect();
            for at in &found {
                let since = self.idle.get(at).copied().unwrap_or(now);
                idle.insert(at.clone(), since);
            }
            if found.len() > asked.number {
                said.push(format!(
                    "{} meters of {} at {} kbit/s have come up while {} was or were asked for, and no \
                     rule uses them: which are this controller's cannot be told; DELETE those of \
                     /onos/v1/meters/{} that nobody needs",
                    found.len(),
                    asked.device,
                    asked.rate_kbit,
                    asked.number,
                    asked.device
                ));
                continue;
            }
            let settled = |at: &(String, u32)| {
                let since = idle.get(at);
                since.is_some_and(|since| now.duration_since(*since) >= self.settling)
            };
            if !found.is_empty() && found.iter().all(settled) {
                asked.number -= found.len();
                memory.ours.extend(found);
            } else if found.is_empty() && now.duration_since(asked.since) >= 2 * self.settling {
                // it was never made, or has gone
                asked.number = 0;
            }
        }
        self.known.asked.retain(|asked| asked.number > 0);
        self.idle = idle;
        said
    }

    /// Writes down what is ours now and what is about to be asked for.
    pub(super) async fn before(
        &mut self,
        survey: &Survey,
        memory: &Memory,
        plan: &Plan,
        now: Instant,
    ) -> anyhow::Result<()> {
        let mut next = self.known.clone();
        let own = memory.ours.iter().filter_map(|at| {
            let spec = survey.meters.get(at)?.spec?;
            Some(Own::of(at, spec))
        });
        next.meters.extend(own);
        next.meters.retain(|own| {
            let meter = survey.meters.get(&(own.device.clone(), own.id));
            meter.is_some_and(|meter| meter.spec == Some(own.spec()))
        });
        let mut kinds: BTreeMap<(&str, MeterSpec), usize> = BTreeMap::new();
        for make in &plan.make {
            *kinds.entry((&make.device, make.spec)).or_default() += 1;
        }
        for ((device, spec), number) in kinds {
            let there = survey.meters.iter();
            next.asked.push(Asked {
                device: device.to_owned(),
                rate_kbit: spec.rate_kbit,
                burst_kbit: spec.burst_kbit,
                number,
                before: there
                    .filter(|((of, _), meter)| of == device && meter.spec == Some(spec))
                    .map(|((_, id), _)| *id)
                    .collect(),
                since: now,
            });
        }
        self.write(next).await
    }

    /// Writes down what became of what was asked for at `began`. Where that fails, what is written
    /// down already is enough: it is less exact.
    pub(super) async fn after(&mut self, done: &Done, began: Instant) {
        let mut next = self.known.clone();
        let gone = |own: &Own| done.gone.contains(&(own.device.clone(), own.id));
        next.meters.retain(|own| !gone(own));
        let made = done.made.iter();
        next.meters
            .extend(made.map(|(device, id, spec)| Own::of(&(device.clone(), *id), *spec)));
        next.asked.retain_mut(|asked| {
            if asked.since != began {
                return true;
            }
            for (device, id, spec) in &done.made {
                if asked.is(device, *spec) {
                    asked.before.insert(*id);
                }
            }
            let lost = done.lost.iter();
            asked.number = lost
                .filter(|(device, spec)| asked.is(device, *spec))
                .count();
            asked.number > 0
        });
        if let Err(e) = self.write(next).await {
            tracing::warn!("{e:#}");
        }
    }

    async fn write(&mut self, next: Written) -> anyhow::Result<()> {
        if next == self.written {
            self.known = next;
            return Ok(());
        }
        let (file, bytes) = (self.file.clone(), serde_json::to_vec(&next)?);
        tokio::task::spawn_blocking(move || whole_file::write(&file, &bytes))
            .await?
            .with_context(|| {
                let file = self.file.display();
                format!("writing which meters in ONOS are ours to {file}")
            })?;
        self.known.clone_from(&next);
        self.written = next;
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<Written> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let Head { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        bail!(
            "it has version {version} and this vdnd knows {VERSION}: run the one that wrote it, or a \
             newer one"
        );
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
