//! The gateway tried out as its users would: a slice and a pod for it, connections from both sides,
//! and access rules that come and go. Who knocks is the lab; what is to happen is worked out here, by
//! the controller ([`Explanation`]) and by who enforces it, and all three must agree.

use super::{
    NAME, VISIT, counters,
    doors::{self, ALLOWED, Door, IN, OUT, SERVICE, Standing},
    visitor::{Held, Visitor},
};
use crate::{
    capsule::Lab,
    daemons::{Daemons, until},
    knock::Heard,
    options::Fabric,
    pods,
    scenario::{self, Deployed},
    site::Site,
};
use anyhow::{Context, Result, ensure};
use dtn_api::{
    Rate, Span, VDN_BASE,
    gateway::{AccessRule, AccessRules, Direction, Explanation, Gateway},
    local::Ask,
    nic::NicClass,
    slice::Class,
};
use dtn_measure::report::{GatewayEvidence, Knock, RuleChange};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use uuid::Uuid;

/// Name of the slice and of the pod, at each site.
pub(super) const SLICE: &str = "door";
/// What is reserved for it: little, since it carries a few packets.
const RATE: Rate = Rate::from_bps(10_000_000);
/// How long: longer than any run.
const DURATION: Span = Span::from_secs(6 * 3600);
/// How long nothing must be heard for it to be silence. There is no distance in the way: an answer
/// takes a few milliseconds.
const SILENCE: Duration = Duration::from_millis(700);
/// How long it may take to be heard where it is to be: a busy machine loses a packet, and TCP sends it
/// again after a second (RFC 6298).
const OPENING: Duration = Duration::from_secs(5);
/// How long is listened each time while a change is waited for.
const GLANCE: Duration = Duration::from_millis(150);
/// A change of the rules is to be in force by then. An ONOS is asked for what its switches have, which
/// it looks at every 5 s, and the rules that are to come after others wait for that.
fn promised(fabric: Fabric) -> Duration {
    Duration::from_secs(match fabric {
        Fabric::Edge | Fabric::Openflow => 3,
        Fabric::Onos => 12,
    })
}
/// A change that is not in force is given up on after this.
const GIVEN_UP: Duration = Duration::from_secs(20);
/// Longest time until the gateway forwards for a new slice.
const SERVING: Duration = Duration::from_secs(60);
/// Longest time until the counters are told.
const COUNTED: Duration = Duration::from_secs(15);

/// Tries the gateways of all sites at once.
pub async fn run(lab: &Lab) -> Result<Vec<GatewayEvidence>> {
    let sites = lab.sites.iter().zip(&lab.daemons);
    let all = sites.map(|(site, daemons)| async move {
        one(lab, site, daemons)
            .await
            .with_context(|| format!("trying the gateway of {}", site.name))
    });
    futures_util::future::try_join_all(all).await
}

/// Takes the pods down and gives the slices back.
pub async fn give_back(lab: &Lab) -> Result<()> {
    let sites = lab.sites.iter().zip(&lab.daemons);
    let all = sites.map(async |(site, daemons)| {
        pods::undeploy(lab, site, SLICE).await?;
        scenario::give_back(daemons, SLICE).await
    });
    futures_util::future::try_join_all(all).await.map(|_| ())
}

async fn one(lab: &Lab, site: &Site, daemons: &Daemons) -> Result<GatewayEvidence> {
    let slice = scenario::negotiate(daemons, &ask()?)
        .await?
        .slice_id
        .context("a slice was agreed, and its id was not told")?;
    let wanted = Deployed {
        pod: SLICE,
        slice: SLICE,
        nic: VISIT.0,
        class: NicClass::Shared,
    };
    let pod = pods::deploy(lab, site, &wanted).await?;
    serving(daemons, slice).await?;
    let mut trial = Trial {
        site,
        daemons,
        visitor: Visitor::new(lab, site, &pod).await?,
        promised: promised(lab.options.fabric),
        evidence: GatewayEvidence {
            site: site.name.into(),
            name: NAME.into(),
            ok: false,
            wrong: Vec::new(),
            knocks: Vec::new(),
            changes: Vec::new(),
            denied_outbound: 0,
            denied_inbound: 0,
            denied_by_switches: None,
        },
    };
    trial.all(lab).await?;
    Ok(trial.evidence)
}

/// What is asked of the supervisor.
fn ask() -> Result<Ask> {
    Ok(Ask {
        name: scenario::name(SLICE)?,
        tenant: dtn_api::slice::default_tenant(),
        class: Class::Guaranteed,
        rate: Some(RATE),
        min_rate: None,
        start: None,
        duration: DURATION,
        nic: Some(scenario::name(VISIT.0)?),
        nic_class: NicClass::Shared,
        remote: None,
        gateway: Some(scenario::name(NAME)?),
        wait: Span::default(),
        dry_run: false,
    })
}

/// A path of the controller's, below the gateway.
pub(super) fn path(rest: &str) -> String {
    format!("{VDN_BASE}/gateways/{NAME}{rest}")
}

/// Waits until the gateway's host says that it forwards for the slice.
async fn serving(daemons: &Daemons, slice: Uuid) -> Result<()> {
    let said = std::cell::RefCell::new(String::from("it has not reported"));
    let ask = || async {
        let gateway: Gateway = daemons.vdn.get(&path("")).await?;
        let Some(report) = gateway.report else {
            return Ok(None);
        };
        *said.borrow_mut() = report
            .trouble
            .clone()
            .unwrap_or_else(|| format!("it forwards for {:?}", report.slices));
        Ok((report.trouble.is_none() && report.slices.contains(&slice)).then_some(()))
    };
    let what = format!("the gateway of {} forwards for the slice", daemons.site);
    timeout(SERVING, until(&what, ask))
        .await
        .map_err(anyhow::Error::from)
        .flatten()
        .with_context(|| format!("{what}: {}", said.borrow()))
}

/// One site's trial.
struct Trial<'a> {
    site: &'a Site,
    daemons: &'a Daemons,
    visitor: Visitor<'a>,
    /// A change of the rules is to be in force by then.
    promised: Duration,
    evidence: GatewayEvidence,
}

impl Trial<'_> {
    /// The whole trial, in order.
    async fn all(&mut self, lab: &Lab) -> Result<()> {
        let before = counters::switches_denied(lab, self.site).await?;
        self.knock(Standing::NONE).await?;

        let ports = doors::ports(lab.options.fabric, ALLOWED);
        let outbound = doors::rule(OUT, Direction::Outbound, &ports)?;
        let asked = Instant::now();
        self.put("/access_rules", &list(vec![outbound])).await?;
        let what = format!("allow outbound tcp {}", ports.join(" "));
        self.settle(&what, asked, Standing::NONE, Standing::OUT)
            .await?;
        self.knock(Standing::OUT).await?;

        let inbound = doors::rule(IN, Direction::Inbound, &[SERVICE.to_string()])?;
        let asked = Instant::now();
        self.put(&format!("/access_rules/{IN}"), &inbound).await?;
        let what = format!("allow inbound tcp {SERVICE}");
        self.settle(&what, asked, Standing::OUT, Standing::BOTH)
            .await?;
        self.knock(Standing::BOTH).await?;
        let held = self.hold(Standing::BOTH).await?;
        self.count(lab, before).await?;

        let asked = Instant::now();
        self.put("/access_rules", &list(Vec::new())).await?;
        self.settle("no rule any more", asked, Standing::BOTH, Standing::NONE)
            .await?;
        self.let_go(held).await?;
        self.knock(Standing::NONE).await?;
        self.evidence.ok = self.evidence.wrong.is_empty();
        Ok(())
    }

    async fn put<B: serde::Serialize>(&self, rest: &str, body: &B) -> Result<()> {
        let _: serde_json::Value = self
            .daemons
            .vdn
            .put(&path(rest), body)
            .await
            .with_context(|| format!("changing the access rules of {}", self.site.name))?;
        Ok(())
    }

    /// Knocks everywhere, asks the controller what it thinks of each, and writes it all down.
    async fn knock(&mut self, rules: Standing) -> Result<()> {
        let (open, shut): (Vec<Door>, Vec<Door>) =
            self.visitor.doors.iter().partition(|door| rules.lets(door));
        let (open_heard, shut_heard) = tokio::try_join!(
            self.visitor.listen(&open, OPENING),
            self.visitor.listen(&shut, SILENCE)
        )?;
        let heard = open_heard.into_iter().chain(shut_heard);
        for (door, heard) in open.iter().chain(&shut).zip(heard) {
            self.note(rules.words(), door, rules.lets(door), &heard)
                .await?;
        }
        Ok(())
    }

    /// Opens a connection through every door that is open, and keeps it.
    async fn hold(&mut self, rules: Standing) -> Result<Vec<Held>> {
        let open: Vec<Door> = self
            .visitor
            .doors
            .iter()
            .filter(|door| rules.lets(door))
            .copied()
            .collect();
        let mut held = Vec::new();
        for door in open {
            match self.visitor.hold(door, OPENING, SILENCE).await? {
                Ok(one) => held.push(one),
                Err(heard) => self.note(rules.words(), &door, true, &heard).await?,
            }
        }
        Ok(held)
    }

    /// Connections that were open when their rule went are cut with it.
    async fn let_go(&mut self, held: Vec<Held>) -> Result<()> {
        let again = held.into_iter().map(async |one| {
            let door = one.door;
            one.again().await.map(|heard| (door, heard))
        });
        for (door, heard) in futures_util::future::try_join_all(again).await? {
            let rules = "no rule, a connection that was open before";
            self.note(rules, &door, false, &heard).await?;
        }
        Ok(())
    }

    /// Writes a knock down.
    async fn note(&mut self, rules: &str, door: &Door, wanted: bool, heard: &Heard) -> Result<()> {
        let knock = Knock {
            rules: rules.into(),
            direction: door.direction.to_string(),
            from: door.from.to_string(),
            to: door.to.to_string(),
            wanted,
            seen: heard.to_string(),
            explained: self.explained(door).await?,
        };
        if !knock.ok() {
            self.evidence.wrong.push(format!(
                "with {}, {} from {} to {} was {}, where the controller says {} and {} is right",
                knock.rules,
                knock.direction,
                knock.from,
                knock.to,
                knock.seen,
                knock.explained,
                if knock.wanted { "open" } else { "silent" }
            ));
        }
        self.evidence.knocks.push(knock);
        Ok(())
    }

    /// What the controller says of the first packet of a connection.
    async fn explained(&self, door: &Door) -> Result<String> {
        let query = format!(
            "/explain?slice={SLICE}&src={}&dst={}&proto=tcp&src_port=40000&dst_port={}",
            door.from,
            door.to.ip(),
            door.to.port()
        );
        let explanation: Explanation = self
            .daemons
            .vdn
            .get(&path(&query))
            .await
            .with_context(|| format!("asking why, at the gateway of {}", self.site.name))?;
        ensure!(
            explanation.direction == door.direction,
            "the controller takes {} to {} for {}",
            door.from,
            door.to,
            explanation.direction
        );
        Ok(explanation.packet.action.to_string())
    }

    /// Waits until what the change is about goes as the new rules say.
    async fn settle(
        &mut self,
        what: &str,
        asked: Instant,
        before: Standing,
        now: Standing,
    ) -> Result<()> {
        let doors: Vec<Door> = self
            .visitor
            .doors
            .iter()
            .filter(|door| before.lets(door) != now.lets(door))
            .copied()
            .collect();
        let in_force = loop {
            let begun = asked.elapsed();
            let heard = self.visitor.listen(&doors, GLANCE).await?;
            let ended = asked.elapsed();
            let settled = doors
                .iter()
                .zip(&heard)
                .all(|(door, heard)| now.lets(door) == (*heard == Heard::Open));
            if settled {
                // silence lasts as long as it is listened to
                let closed = doors.iter().all(|door| !now.lets(door));
                break Some(if closed { begun } else { ended });
            }
            if ended > GIVEN_UP {
                break None;
            }
        };
        let late = match in_force {
            Some(after) if after <= self.promised => None,
            Some(after) => Some(format!("only after {} ms", after.as_millis())),
            None => Some(format!("not in {} s", GIVEN_UP.as_secs())),
        };
        if let Some(late) = late {
            self.evidence
                .wrong
                .push(format!("{what} was in force {late}"));
        }
        self.evidence.changes.push(RuleChange {
            what: what.to_owned(),
            in_force_ms: in_force.map(|after| after.as_secs_f64() * 1000.0),
        });
        Ok(())
    }

    /// Waits until all that was dropped and all that passed has been counted.
    async fn count(&mut self, lab: &Lab, before: Option<u64>) -> Result<()> {
        let end = Instant::now() + COUNTED;
        let counted = loop {
            let counted = counters::read(lab, self.site, self.daemons, before).await?;
            if counted.missing.is_empty() || Instant::now() >= end {
                break counted;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let evidence = &mut self.evidence;
        evidence.denied_outbound = counted.outbound;
        evidence.denied_inbound = counted.inbound;
        evidence.denied_by_switches = counted.by_switches;
        evidence.wrong.extend(counted.missing);
        Ok(())
    }
}

fn list(items: Vec<AccessRule>) -> AccessRules {
    AccessRules { items, version: 0 }
}
