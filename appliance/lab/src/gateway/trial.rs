//! The gateway tried out as its users would: a slice and a pod for it, connections from both sides,
//! and access rules that come and go. Who knocks is the lab; what is to happen is worked out here, by
//! the controller ([`Explanation`]) and by who enforces it, and all three must agree.

use super::{NAME, SERVICES, VISIT, answering, host, space};
use crate::{
    capsule::Lab,
    daemons::{Daemons, until},
    knock::Heard,
    scenario::{self, Deployed},
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result, ensure};
use dtn_api::{
    Rate, Span, VDN_BASE,
    gateway::{
        AccessAction, AccessMatch, AccessRule, AccessRules, Direction, Explanation, Gateway,
        PortRange, Protocol, StandingRules,
    },
    local::{Ask, Pod},
    nic::NicClass,
    slice::Class,
};
use dtn_measure::report::{GatewayEvidence, Knock, RuleChange};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use uuid::Uuid;

/// Name of the slice and of the pod, at each site.
const SLICE: &str = "door";
/// What is reserved for it: little, since it carries a few packets.
const RATE: Rate = Rate::from_bps(10_000_000);
/// How long: longer than any run.
const DURATION: Span = Span::from_secs(6 * 3600);
/// TCP port that the pod answers on.
const SERVICE: u16 = 8443;
/// How long nothing must be heard for it to be silence. There is no distance in the way: an answer
/// takes a few milliseconds.
const SILENCE: Duration = Duration::from_millis(700);
/// The same while a change is waited for.
const GLANCE: Duration = Duration::from_millis(150);
/// A change of the rules is to be in force by then.
const PROMISED: Duration = Duration::from_secs(3);
/// And is given up on after this.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// Longest time until the gateway forwards for a new slice.
const SERVING: Duration = Duration::from_secs(60);
/// Longest time until the counters are told.
const COUNTED: Duration = Duration::from_secs(15);
/// The ports outside that a rule allows, from one to another: all but the last that is answered on, so
/// that the range has an end that matters.
const ALLOWED: (u16, u16) = (SERVICES[0], SERVICES[SERVICES.len() - 2]);
/// Number of the rule for what goes out.
const OUT: u16 = 10;
/// And of the one for what comes in.
const IN: u16 = 20;

/// Where a knock goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Door {
    direction: Direction,
    from: IpAddr,
    to: SocketAddr,
}

/// Which rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Standing {
    out: bool,
    into: bool,
}

impl Standing {
    /// In words.
    fn words(self) -> &'static str {
        match (self.out, self.into) {
            (false, false) => "no rule",
            (true, false) => "outbound allowed",
            (false, true) => "inbound allowed",
            (true, true) => "both ways allowed",
        }
    }
    /// Whether a knock is to be heard under these rules.
    fn lets(self, door: &Door) -> bool {
        match door.direction {
            Direction::Outbound => self.out && (ALLOWED.0..=ALLOWED.1).contains(&door.to.port()),
            Direction::Inbound => self.into,
        }
    }
}

/// Allows TCP one way, to some ports.
fn rule(number: u16, direction: Direction, (first, last): (u16, u16)) -> Result<AccessRule> {
    let ports: PortRange = format!("{first}-{last}")
        .parse()
        .map_err(anyhow::Error::msg)?;
    Ok(AccessRule {
        priority: number,
        action: AccessAction::Allow,
        direction,
        slice: Some(scenario::name(SLICE)?),
        tenant: dtn_api::slice::default_tenant(),
        packets: AccessMatch {
            proto: Some(Protocol::Tcp),
            dst_ports: vec![ports],
            ..AccessMatch::default()
        },
        // one of each kind
        stateful: direction == Direction::Inbound,
        schedule: None,
        log: false,
        note: String::new(),
    })
}

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
    for daemons in &lab.daemons {
        scenario::undeploy(daemons, SLICE).await?;
        scenario::give_back(daemons, SLICE).await?;
    }
    Ok(())
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
    let pod = scenario::deploy_as(daemons, &lab.place, &wanted).await?;
    serving(daemons, slice).await?;
    let mut trial = Trial::begin(lab, site, daemons, &pod).await?;
    trial.all().await?;
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
fn path(rest: &str) -> String {
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
    lab: &'a Lab,
    site: &'a Site,
    daemons: &'a Daemons,
    /// Path of the pod's sandbox.
    netns: String,
    doors: Vec<Door>,
    evidence: GatewayEvidence,
    /// What the switches had dropped before.
    before: Option<u64>,
    /// Answers in the pod, until this is let go.
    _service: Child,
}

impl<'a> Trial<'a> {
    async fn begin(lab: &'a Lab, site: &'a Site, daemons: &'a Daemons, pod: &Pod) -> Result<Self> {
        let mut inside = Vec::new();
        for ip in pod.interfaces.iter().flat_map(|one| &one.ips) {
            let bare = ip.split('/').next().unwrap_or(ip);
            inside.push(
                bare.parse::<IpAddr>()
                    .with_context(|| format!("the address {ip} of the pod {SLICE}"))?,
            );
        }
        let mut command = site.command("nsenter");
        command.arg(format!("--net={}", pod.netns)).arg("--");
        command.arg(&lab.program);
        let log = lab.place.log(&format!("{}-{SLICE}", site.name));
        let name = format!("the service in the pod {SLICE} of {}", site.name);
        let service = answering(command, &name, &[SERVICE], &lab.place, &log).await?;
        let mut trial = Self {
            lab,
            site,
            daemons,
            netns: pod.netns.clone(),
            doors: doors(&inside, &host(site.index)),
            evidence: GatewayEvidence {
                site: site.name.into(),
                name: NAME.into(),
                ok: true,
                wrong: Vec::new(),
                knocks: Vec::new(),
                changes: Vec::new(),
                denied_outbound: 0,
                denied_inbound: 0,
                denied_by_switches: None,
            },
            before: None,
            _service: service,
        };
        trial.before = trial.switches_denied().await?;
        ensure!(
            trial.doors.len() == 2 * (SERVICES.len() + 1),
            "the pod {SLICE} of {} has the addresses {inside:?}, and one of each family is needed",
            site.name
        );
        Ok(trial)
    }

    /// The whole trial, in order.
    async fn all(&mut self) -> Result<()> {
        let (none, out, both) = (
            Standing::default(),
            Standing {
                out: true,
                into: false,
            },
            Standing {
                out: true,
                into: true,
            },
        );
        self.knock(none).await?;

        let outbound = rule(OUT, Direction::Outbound, ALLOWED)?;
        let asked = Instant::now();
        self.put("/access_rules", &list(vec![outbound])).await?;
        let what = format!("allow outbound tcp {}-{}", ALLOWED.0, ALLOWED.1);
        self.settle(&what, asked, none, out).await?;
        self.knock(out).await?;

        let inbound = rule(IN, Direction::Inbound, (SERVICE, SERVICE))?;
        let asked = Instant::now();
        self.put(&format!("/access_rules/{IN}"), &inbound).await?;
        let what = format!("allow inbound tcp {SERVICE}");
        self.settle(&what, asked, out, both).await?;
        self.knock(both).await?;
        self.counted().await?;

        let asked = Instant::now();
        self.put("/access_rules", &list(Vec::new())).await?;
        self.settle("no rule again", asked, both, none).await?;
        self.knock(none).await?;
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
        let doors = self.doors.clone();
        let heard = self.listen(&doors, SILENCE).await?;
        for (door, heard) in doors.iter().zip(heard) {
            let knock = Knock {
                rules: rules.words().into(),
                direction: door.direction.to_string(),
                from: door.from.to_string(),
                to: door.to.to_string(),
                wanted: rules.lets(door),
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
        }
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
            .doors
            .iter()
            .filter(|door| before.lets(door) != now.lets(door))
            .copied()
            .collect();
        let in_force = loop {
            let begun = asked.elapsed();
            let heard = self.listen(&doors, GLANCE).await?;
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
            Some(after) if after <= PROMISED => None,
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

    /// Knocks from both sides at once; gives what was heard, in the order of the doors.
    async fn listen(&self, doors: &[Door], wait: Duration) -> Result<Vec<Heard>> {
        let of = |direction: Direction| {
            doors
                .iter()
                .filter(|door| door.direction == direction)
                .map(|door| door.to)
                .collect::<Vec<_>>()
        };
        let (out, into) = (of(Direction::Outbound), of(Direction::Inbound));
        let mut inside = self.site.command("nsenter");
        inside.arg(format!("--net={}", self.netns));
        let mut outside = Command::new("nsenter");
        outside.arg(format!("--net=/run/netns/{}", space(self.site.index)));
        let (out, into) = tokio::try_join!(
            self.knocks(inside, &out, wait),
            self.knocks(outside, &into, wait)
        )?;
        let (mut out, mut into) = (out.into_iter(), into.into_iter());
        doors
            .iter()
            .map(|door| match door.direction {
                Direction::Outbound => out.next(),
                Direction::Inbound => into.next(),
            })
            .collect::<Option<_>>()
            .context("who knocked has told less than it was asked")
    }

    async fn knocks(
        &self,
        mut command: Command,
        to: &[SocketAddr],
        wait: Duration,
    ) -> Result<Vec<Heard>> {
        if to.is_empty() {
            return Ok(Vec::new());
        }
        let to: Vec<_> = to.iter().map(SocketAddr::to_string).collect();
        command
            .arg("--")
            .arg(&self.lab.program)
            .args(["lab", "part", "knock", "--to", &to.join(",")])
            .args(["--ms", &wait.as_millis().to_string()]);
        let told = shell::output(command, None, SHORT)
            .await
            .with_context(|| format!("knocking at {}", self.site.name))?;
        Ok(told
            .lines()
            .map(|line| {
                line.parse()
                    .unwrap_or_else(|never: Infallible| match never {})
            })
            .collect())
    }

    /// What the site's switches have dropped in their tables of access.
    async fn switches_denied(&self) -> Result<Option<u64>> {
        match self.lab.switches.get(self.site.index) {
            Some(switches) => switches.denied().await.map(Some),
            None => Ok(None),
        }
    }

    /// Waits until all that was dropped and all that passed has been counted, by everyone who had it
    /// before them. What leaves a slice comes to the switches first, where there are some; what comes
    /// into it comes to the gateway's host first.
    async fn counted(&mut self) -> Result<()> {
        let end = Instant::now() + COUNTED;
        loop {
            let missing = self.count().await?;
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                self.evidence.wrong.extend(missing);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads all counters; gives what is missing, in words.
    async fn count(&mut self) -> Result<Vec<String>> {
        let reading = || format!("reading the counters of the gateway of {}", self.site.name);
        let gateway: Gateway = self
            .daemons
            .vdn
            .get(&path(""))
            .await
            .with_context(reading)?;
        let standing: StandingRules = self
            .daemons
            .vdn
            .get(&path("/access_rules"))
            .await
            .with_context(reading)?;
        let by_switches = match (self.switches_denied().await?, self.before) {
            (Some(now), Some(before)) => Some(now.saturating_sub(before)),
            _ => None,
        };
        let (out, into) = gateway.report.as_ref().map_or((0, 0), |report| {
            (
                report.denied_outbound.packets,
                report.denied_inbound.packets,
            )
        });
        let evidence = &mut self.evidence;
        (
            evidence.denied_outbound,
            evidence.denied_inbound,
            evidence.denied_by_switches,
        ) = (out, into, by_switches);
        Ok(missing(&gateway, &standing, out, into, by_switches))
    }
}

/// What is not counted yet, in words.
fn missing(
    gateway: &Gateway,
    standing: &StandingRules,
    out: u64,
    into: u64,
    by_switches: Option<u64>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |holds: bool, text: String| {
        if !holds {
            found.push(text);
        }
    };
    say(
        into > 0,
        "its host has counted nothing that was denied on its way in".into(),
    );
    match by_switches {
        Some(packets) => {
            say(
                packets > 0,
                "the switches have counted nothing that was denied".into(),
            );
            say(
                standing
                    .denied_switches
                    .is_some_and(|count| count.packets > 0),
                "the controller knows of nothing that its switches have denied".into(),
            );
        }
        None => say(
            out > 0,
            "its host has counted nothing that was denied on its way out".into(),
        ),
    }
    for number in [OUT, IN] {
        let rule = standing
            .items
            .iter()
            .find(|one| one.rule.priority == number);
        say(
            rule.is_some_and(|rule| rule.host.packets > 0),
            format!("its host has counted nothing for rule {number}"),
        );
        say(
            by_switches.is_none()
                || rule.is_some_and(|rule| rule.switches.is_some_and(|count| count.packets > 0)),
            format!("the switches have counted nothing for rule {number}"),
        );
    }
    let version = gateway.report.as_ref().map(|report| report.rules_version);
    say(
        version == Some(standing.version),
        format!(
            "its host says that it has version {version:?} of the rules, and {} is the newest",
            standing.version
        ),
    );
    found
}

fn list(items: Vec<AccessRule>) -> AccessRules {
    AccessRules { items, version: 0 }
}

/// Every knock of a trial: from each address of the pod to each service outside, and back.
fn doors(inside: &[IpAddr], outside: &[IpAddr]) -> Vec<Door> {
    let mut doors = Vec::new();
    for from in inside {
        for to in outside.iter().filter(|to| to.is_ipv6() == from.is_ipv6()) {
            doors.extend(SERVICES.iter().map(|port| Door {
                direction: Direction::Outbound,
                from: *from,
                to: SocketAddr::new(*to, *port),
            }));
            doors.push(Door {
                direction: Direction::Inbound,
                from: *to,
                to: SocketAddr::new(*from, SERVICE),
            });
        }
    }
    doors
}

#[cfg(test)]
mod tests;
