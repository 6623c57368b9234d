//! The lab's processes: this program again, told which part it plays. `dtnctl lab part …` is not
//! meant for people; the lab calls it.

use crate::{
    capsule, janitor, knock, onos,
    options::EngineKind,
    place::{Place, SITES},
    probe, relay, runtime, site,
};
use anyhow::{Context, Result, bail};
use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::Duration,
};

/// Which part a process plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Sweeps after the capsule.
    Janitor {
        /// The lab's folder.
        state: PathBuf,
    },
    /// Sweeps when the janitor was killed.
    Understudy {
        /// The lab's folder.
        state: PathBuf,
    },
    /// Builds and runs everything, inside.
    Capsule {
        /// The lab's folder.
        state: PathBuf,
    },
    /// Holds a host's namespaces.
    Anchor {
        /// Which host.
        site: String,
        /// The lab's folder.
        state: PathBuf,
        /// What will run there.
        engine: EngineKind,
    },
    /// Delays the wide-area link.
    Relay(relay::Sides),
    /// The far end of a trial.
    Far {
        /// What is not counted of a stream's start.
        warm_up: Duration,
    },
    /// The near end of a trial: one stream.
    Send {
        /// Where to.
        to: Ipv4Addr,
        /// For how long.
        length: Duration,
    },
    /// The near end of a trial: round trips.
    Ping {
        /// Where to.
        to: Ipv4Addr,
    },
    /// Sends back what arrives, for who knocks.
    Answer {
        /// TCP ports.
        ports: Vec<u16>,
    },
    /// Knocks at all of them at once.
    Knock {
        /// Where.
        to: Vec<SocketAddr>,
        /// For how long.
        wait: Duration,
    },
    /// Knocks at one and keeps the connection, to knock over it again.
    Hold {
        /// Where.
        to: SocketAddr,
        /// For how long at first.
        opening: Duration,
        /// For how long again.
        again: Duration,
    },
    /// A site's end of the way to an ONOS of the machine.
    Doorway {
        /// The lab's folder.
        state: PathBuf,
        /// Which site.
        site: usize,
    },
    /// Asks a site's ONOS for the hosts that it lists.
    OnosHosts {
        /// The lab's folder.
        state: PathBuf,
        /// Which site.
        site: usize,
    },
    /// Stands in front of runc.
    Runtime {
        /// runc itself.
        runc: OsString,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
}

/// The words after the program's name by which a host's anchor is started, and found again.
pub fn anchor_words(site: &str, engine: EngineKind, state: &Path) -> Vec<OsString> {
    let engine = engine.to_string();
    let words = [
        "lab", "part", "anchor", "--site", site, "--engine", &engine, "--state",
    ];
    let mut words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    words.push(state.into());
    words
}

impl Part {
    /// From the words after `lab part`, which only the lab itself writes.
    pub fn parse(words: &[OsString]) -> Result<Self> {
        let (name, rest) = words.split_first().context("no part is named")?;
        let value = |option: &str| -> Result<&OsString> {
            let at = rest.iter().position(|word| word == option);
            at.and_then(|at| rest.get(at + 1))
                .with_context(|| format!("{} needs {option}", name.display()))
        };
        let text = |option: &str| -> Result<String> {
            value(option)?
                .to_str()
                .map(str::to_owned)
                .with_context(|| format!("{option} is no text"))
        };
        let number = |option: &str| -> Result<u64> {
            text(option)?
                .parse()
                .with_context(|| format!("{option} is no number"))
        };
        let address =
            || -> Result<Ipv4Addr> { text("--to")?.parse().context("--to is no address") };
        let state = || value("--state").map(PathBuf::from);
        let site = || -> Result<usize> {
            let name = text("--site")?;
            let site = SITES.iter().position(|site| *site == name);
            site.with_context(|| format!("there is no site {name}"))
        };
        Ok(match name.to_str() {
            Some("janitor") => Self::Janitor { state: state()? },
            Some("understudy") => Self::Understudy { state: state()? },
            Some("capsule") => Self::Capsule { state: state()? },
            Some("anchor") => Self::Anchor {
                site: text("--site")?,
                state: state()?,
                engine: text("--engine")?.parse().map_err(anyhow::Error::msg)?,
            },
            Some("relay") => Self::Relay(relay::Sides {
                one: text("--one")?,
                other: text("--other")?,
                hold: Duration::from_micros(number("--hold-us")?),
                queue: number("--queue")?,
            }),
            Some("far") => Self::Far {
                warm_up: Duration::from_millis(number("--warm-up-ms")?),
            },
            Some("send") => Self::Send {
                to: address()?,
                length: Duration::from_millis(number("--ms")?),
            },
            Some("ping") => Self::Ping { to: address()? },
            Some("answer") => Self::Answer {
                ports: list(&text("--ports")?)?,
            },
            Some("knock") => Self::Knock {
                to: list(&text("--to")?)?,
                wait: Duration::from_millis(number("--ms")?),
            },
            Some("hold") => Self::Hold {
                to: text("--to")?.parse().context("--to is no address")?,
                opening: Duration::from_millis(number("--ms")?),
                again: Duration::from_millis(number("--again-ms")?),
            },
            Some("doorway") => Self::Doorway {
                state: state()?,
                site: site()?,
            },
            Some("onos-hosts") => Self::OnosHosts {
                state: state()?,
                site: site()?,
            },
            Some("runtime") => {
                let (runc, arguments) = rest.split_first().context("runc is not named")?;
                Self::Runtime {
                    runc: runc.clone(),
                    arguments: arguments.to_vec(),
                }
            }
            _ => bail!("the lab has no part {}", name.display()),
        })
    }
}

/// What is written with commas between.
fn list<T: FromStr>(text: &str) -> Result<Vec<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.split(',')
        .map(|one| one.parse().with_context(|| format!("{one:?} of {text:?}")))
        .collect()
}

/// Round trips of a trial.
const TRIPS: u32 = 30;

/// Plays the part until its end.
pub fn play(part: Part) -> Result<ExitCode> {
    match part {
        Part::Janitor { state } => {
            let program = std::env::current_exe().context("finding this program's own file")?;
            match janitor::run(&Place::new(&state), &program) {
                Ok(code) => return Ok(code),
                Err(error @ janitor::JanitorError::Busy(_)) => {
                    crate::progress::tell(&crate::progress::Event::Failed(error.to_string()));
                    return Ok(ExitCode::from(janitor::BUSY));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Part::Understudy { state } => janitor::understudy(&Place::new(&state))?,
        Part::Capsule { state } => return capsule::run(&Place::new(&state)),
        Part::Anchor {
            site,
            state,
            engine,
        } => site::anchor(&site, &Place::new(&state), engine)?,
        Part::Relay(sides) => relay::serve(&sides)?,
        Part::Far { warm_up } => probe::far(warm_up)?,
        Part::Send { to, length } => probe::send(to, length)?,
        Part::Ping { to } => probe::ping(to, TRIPS)?,
        Part::Answer { ports } => knock::answer(&ports)?,
        Part::Knock { to, wait } => knock::knock(&to, wait)?,
        Part::Hold { to, opening, again } => knock::hold(to, opening, again)?,
        Part::Doorway { state, site } => onos::doorway::serve(&Place::new(&state), site)?,
        Part::OnosHosts { state, site } => onos::hosts::print(&Place::new(&state), site)?,
        Part::Runtime { runc, arguments } => match runtime::become_runc(&runc, &arguments)? {},
    }
    Ok(ExitCode::SUCCESS)
}
