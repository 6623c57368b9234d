//! Who knocks: processes in the pod's sandbox and on the host outside, and the service in the pod.

use super::{
    answering,
    doors::{Door, SERVICE},
    host, space,
    trial::SLICE,
};
use crate::{
    capsule::Lab,
    knock::Heard,
    pods::Running,
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result, ensure};
use dtn_api::gateway::Direction;
use std::{convert::Infallible, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Both sides of a gateway.
pub(super) struct Visitor<'a> {
    lab: &'a Lab,
    site: &'a Site,
    /// Path of the pod's sandbox.
    netns: String,
    /// Everything that is knocked at.
    pub(super) doors: Vec<Door>,
    /// Answers in the pod, until this is let go.
    _service: Child,
}

/// A connection that is kept.
pub(super) struct Held {
    /// Where it goes.
    pub(super) door: Door,
    child: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl<'a> Visitor<'a> {
    /// Starts the service in the pod.
    pub(super) async fn new(lab: &'a Lab, site: &'a Site, pod: &Running) -> Result<Self> {
        let inside = &pod.addresses;
        ensure!(
            inside.len() == 2 && inside[0].is_ipv6() != inside[1].is_ipv6(),
            "the pod {SLICE} of {} has the addresses {inside:?}, and one of each family is needed",
            site.name
        );
        let mut command = entering(site, &pod.netns);
        command.arg("--").arg(&lab.program);
        let log = lab.place.log(&format!("{}-{SLICE}", site.name));
        let name = format!("the service in the pod {SLICE} of {}", site.name);
        let service = answering(command, &name, &[SERVICE], &lab.place, &log).await?;
        Ok(Self {
            lab,
            site,
            netns: pod.netns.clone(),
            doors: super::doors::doors(inside, &host(site.index)),
            _service: service,
        })
    }

    /// Where who knocks stands.
    fn standing(&self, direction: Direction) -> Command {
        let mut command = match direction {
            Direction::Outbound => entering(self.site, &self.netns),
            Direction::Inbound => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}", space(self.site.index)));
                command
            }
        };
        command
            .arg("--")
            .arg(&self.lab.program)
            .args(["lab", "part"]);
        command
    }

    /// Knocks from both sides at once; gives what was heard, in the order of the doors.
    pub(super) async fn listen(&self, doors: &[Door], wait: Duration) -> Result<Vec<Heard>> {
        let (out, into) = tokio::try_join!(
            self.knocks(Direction::Outbound, doors, wait),
            self.knocks(Direction::Inbound, doors, wait)
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
        direction: Direction,
        doors: &[Door],
        wait: Duration,
    ) -> Result<Vec<Heard>> {
        let to: Vec<_> = doors
            .iter()
            .filter(|door| door.direction == direction)
            .map(|door| door.to.to_string())
            .collect();
        if to.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.standing(direction);
        command
            .args(["knock", "--to", &to.join(",")])
            .args(["--ms", &wait.as_millis().to_string()]);
        let told = shell::output(command, None, SHORT)
            .await
            .with_context(|| format!("knocking at {}", self.site.name))?;
        Ok(told.lines().map(heard).collect())
    }

    /// Opens a connection and keeps it, to knock over it again for so long; gives what was heard where none came about.
    pub(super) async fn hold(
        &self,
        door: Door,
        opening: Duration,
        again: Duration,
    ) -> Result<Result<Held, Heard>> {
        let mut child = self
            .standing(door.direction)
            .args(["hold", "--to", &door.to.to_string()])
            .args(["--ms", &opening.as_millis().to_string()])
            .args(["--again-ms", &again.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting who connects to {}", door.to))?;
        let told = child.stdout.take().context("who connects has no output")?;
        let mut held = Held {
            door,
            child,
            told: BufReader::new(told).lines(),
        };
        Ok(match held.next().await? {
            Heard::Open => Ok(held),
            other => Err(other),
        })
    }
}

impl Held {
    /// Knocks again over the same connection.
    pub(super) async fn again(mut self) -> Result<Heard> {
        // the end of its input is the word
        drop(self.child.stdin.take());
        self.next().await
    }

    async fn next(&mut self) -> Result<Heard> {
        let line = timeout(SHORT, self.told.next_line())
            .await
            .with_context(|| format!("waiting {} s for who connects", SHORT.as_secs()))?
            .context("reading what who connects has heard")?
            .context("who connects has ended without a word")?;
        Ok(heard(&line))
    }
}

/// In the sandbox of a pod on a site's host.
fn entering(site: &Site, netns: &str) -> Command {
    let mut command = site.command("nsenter");
    command.arg(format!("--net={netns}"));
    command
}

fn heard(line: &str) -> Heard {
    line.parse()
        .unwrap_or_else(|never: Infallible| match never {})
}
