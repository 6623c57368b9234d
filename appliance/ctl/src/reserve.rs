//! `dtnctl slice reserve`: asks for a slice, follows the negotiation to its end, and shows what
//! was asked, offered and taken. A refusal names what would fit and the command that takes it. Between
//! NICs of the domain it is asked of the controller at once ([`between`]).

use crate::{
    answer::{json, read},
    between::{self, End},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    negotiation,
    place::{CARRY_OUT, Daemon, Link},
};
use dtn_api::{
    IfName, Name, Rate, Span,
    client::ClientError,
    local::{Ask, LocalSlice, Negotiation, NegotiationState},
    nic::NicClass,
    problem::Kind,
    slice::{Class, RemoteEnd, Schedule},
};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// Between two looks at a negotiation that is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Options of `slice reserve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the slice
    name: Name,
    /// Rate of Ethernet frames, as 600Mbit; the most that can be had when absent
    #[arg(long)]
    rate: Option<Rate>,
    /// Take less than --rate when it does not fit, down to this
    #[arg(long, value_name = "RATE", requires = "rate")]
    min_rate: Option<Rate>,
    /// What is promised: dedicated (alone on its links), guaranteed or best-effort
    #[arg(long, default_value = "guaranteed")]
    class: Class,
    /// How long
    #[arg(long = "for", value_name = "SPAN", default_value = "1h")]
    duration: Span,
    /// When it starts: an instant as 2027-01-10T06:00:00Z, or a span from now as +2h
    #[arg(long, value_name = "TIME")]
    start: Option<Start>,
    /// The far end in another domain, with its endpoint where it has several
    #[arg(long, value_name = "DOMAIN[/NODE/NIC]")]
    to: Option<FarEnd>,
    /// The border link to the other domain, where there are several
    #[arg(long, value_name = "LINK", requires = "to")]
    via: Option<Name>,
    /// NICs of this domain that it is between, in place of one of this host; asked on the controller's host
    #[arg(
        long, value_name = "NODE/NIC", value_delimiter = ',', requires = "rate",
        conflicts_with_all = ["to", "min_rate", "nic", "device", "wait", "dry_run", "detach"]
    )]
    between: Vec<End>,
    /// With --between: hosts of the domain may let other NICs of theirs join for pods, while it fits
    #[arg(long, requires = "between")]
    open: bool,
    /// The gateway of this domain by which it reaches an external network
    #[arg(long, value_name = "GATEWAY", conflicts_with = "to")]
    gateway: Option<Name>,
    /// Class of this host's NIC: dedicated (whole, for one pod) or shared
    #[arg(long, value_name = "CLASS", default_value = "dedicated")]
    nic: NicClass,
    /// This host's NIC by name; any free one of the class when absent
    #[arg(long, value_name = "NIC")]
    device: Option<IfName>,
    /// How long to wait for a window in which it fits
    #[arg(long, value_name = "SPAN", default_value = "0s")]
    wait: Span,
    /// Who pays for it
    #[arg(long, default_value_t = dtn_api::slice::default_tenant())]
    tenant: Name,
    /// Only say what could be had
    #[arg(long)]
    dry_run: bool,
    /// Do not follow the negotiation; `slice negotiation ID` shows it later
    #[arg(long)]
    detach: bool,
}

/// `--start`: an instant, or a span from now.
#[derive(Debug, Clone, Copy)]
enum Start {
    At(Timestamp),
    In(Span),
}

impl std::str::FromStr for Start {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(span) = text.strip_prefix('+') {
            return span
                .parse()
                .map(Self::In)
                .map_err(|error| format!("{error}"));
        }
        text.parse().map(Self::At).map_err(|_| {
            "write an instant as 2027-01-10T06:00:00Z, or a span from now as +2h".to_owned()
        })
    }
}

/// `--to`: a domain, and one of its endpoints.
#[derive(Debug, Clone)]
struct FarEnd {
    domain: Name,
    endpoint: Option<String>,
}

impl std::str::FromStr for FarEnd {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (domain, endpoint) = match text.split_once('/') {
            Some((domain, endpoint)) => (domain, Some(endpoint)),
            None => (text, None),
        };
        if endpoint
            .is_some_and(|end| end.split('/').count() != 2 || end.split('/').any(str::is_empty))
        {
            return Err("an endpoint is written NODE/NIC, as busan/dtn-busan/data0".into());
        }
        Ok(Self {
            domain: domain.parse().map_err(|error| format!("{error}"))?,
            endpoint: endpoint.map(str::to_owned),
        })
    }
}

impl Args {
    fn starts(&self, now: Timestamp) -> Result<Option<Timestamp>, Failure> {
        Ok(match self.start {
            None => None,
            Some(Start::At(at)) => Some(at),
            Some(Start::In(span)) => Some(now.checked_add(span.duration()).map_err(|_| {
                Failure::Usage(format!("--start +{span}: no calendar goes that far"))
            })?),
        })
    }

    /// What is asked of the controller itself, where ends of its domain are given.
    fn wish(&self, now: Timestamp) -> Result<Option<between::Wish<'_>>, Failure> {
        let Some(rate) = self.rate.filter(|_| !self.between.is_empty()) else {
            return Ok(None);
        };
        let start = self.starts(now)?.unwrap_or(now);
        let end = start.checked_add(self.duration.duration()).map_err(|_| {
            Failure::Usage(format!(
                "--for {}: no calendar goes that far",
                self.duration
            ))
        })?;
        Ok(Some(between::Wish {
            name: &self.name,
            tenant: &self.tenant,
            class: self.class,
            rate,
            schedule: Schedule { start, end },
            ends: &self.between,
            gateway: self.gateway.as_ref(),
            open: self.open,
        }))
    }

    fn ask(&self, now: Timestamp) -> Result<Ask, Failure> {
        let start = self.starts(now)?;
        Ok(Ask {
            name: self.name.clone(),
            tenant: self.tenant.clone(),
            class: self.class,
            rate: self.rate,
            min_rate: self.min_rate,
            start,
            duration: self.duration,
            nic: self.device.clone(),
            nic_class: self.nic,
            gateway: self.gateway.clone(),
            remote: self.to.as_ref().map(|end| RemoteEnd {
                domain: end.domain.clone(),
                endpoint: end.endpoint.clone(),
                border_link: self.via.clone(),
            }),
            wait: self.wait,
            dry_run: self.dry_run,
        })
    }
}

/// Asks the supervisor.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    if let Some(wish) = args.wish(context.now)? {
        return between::run(&wish, context).await;
    }
    let ask = args.ask(context.now)?;
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    let answer = match link.post("/slices", &ask).await {
        Ok(answer) => answer,
        Err(error) => return Err(refused(&ask, error, context)),
    };
    let (answer, negotiation) = if args.detach || ask.dry_run {
        let negotiation: Negotiation = read(&answer, "the negotiation")?;
        (answer, negotiation)
    } else {
        follow(&link, answer, context).await?
    };
    told(answer, &negotiation, &link, context).await
}

/// `slice negotiation ID`: where one stands that was not followed.
pub(crate) async fn negotiation(id: Uuid, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, CARRY_OUT)?;
    let answer = link
        .get(&format!("/negotiations/{id}"))
        .await
        .map_err(|error| while_doing(format!("asking for negotiation {id}"), error))?;
    let negotiation: Negotiation = read(&answer, "the negotiation")?;
    told(answer, &negotiation, &link, context).await
}

/// Looks at a negotiation until it has ended, or for as long as it may wait.
async fn follow(
    link: &Link,
    mut answer: Value,
    context: &Context,
) -> Result<(Value, Negotiation), Failure> {
    let mut negotiation: Negotiation = read(&answer, "the negotiation")?;
    let patience = negotiation.ask.wait.duration() + CARRY_OUT;
    let watch = async {
        let mut seen = None;
        while !negotiation::ended(negotiation.state) {
            if seen != Some(negotiation.state) {
                seen = Some(negotiation.state);
                let reason = &negotiation.reason;
                context.progress(format_args!(
                    "{} {reason}",
                    negotiation::word(negotiation.state)
                ));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            let path = format!("/negotiations/{}", negotiation.id);
            answer = link
                .get(&path)
                .await
                .map_err(|error| while_doing("following the negotiation", error))?;
            negotiation = read(&answer, "the negotiation")?;
        }
        Ok((answer, negotiation))
    };
    match tokio::time::timeout(patience, watch).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::because(format!(
            "the negotiation did not end within {} s",
            patience.as_secs()
        ))
        .or_next(format!(
            "it goes on by itself; see where it stands: {} slice list",
            context.place.command()
        ))),
    }
}

/// What came of it, with the slice as the controller has it now.
async fn told(answer: Value, negotiation: &Negotiation, link: &Link, context: &Context) -> Outcome {
    let ask = &negotiation.ask;
    let command = context.place.command();
    if !negotiation::failed(negotiation) {
        if context.json {
            return json(&answer);
        }
        let slice = match negotiation.state {
            NegotiationState::Agreed if !ask.dry_run => Some(read_back(&ask.name, link).await?),
            _ => None,
        };
        let text = negotiation::shown(negotiation, slice.as_ref(), context.now);
        let next = negotiation::next(negotiation, &command);
        return Ok(Done::text(text).next(next));
    }
    let failure = Failure::because(negotiation::refusal(negotiation));
    let failure = match negotiation::what_would_do(negotiation, &command) {
        Some(next) => failure.or_next(next),
        None => failure,
    };
    Err(failure.showing(if context.json {
        json(&answer)?.out
    } else {
        negotiation::shown(negotiation, None, context.now)
    }))
}

async fn read_back(name: &Name, link: &Link) -> Result<LocalSlice, Failure> {
    let answer = link
        .get(&format!("/slices/{name}"))
        .await
        .map_err(|error| while_doing(format!("reading slice {name} back"), error))?;
    read(&answer, "the slice")
}

/// A refusal that came as a problem document: the number that would fit is in it.
fn refused(ask: &Ask, error: ClientError, context: &Context) -> Failure {
    let fits = error
        .problem()
        .filter(|problem| problem.is(Kind::InsufficientBandwidth))
        .and_then(dtn_api::Problem::available_bps)
        .map(Rate::from_bps);
    let failure = while_doing(format!("reserving slice {}", ask.name), error);
    match fits {
        Some(fits) => failure.or_next(negotiation::take_instead(
            ask,
            fits,
            &context.place.command(),
        )),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    fn ask(line: &[&str]) -> Ask {
        let line = Line::try_parse_from(std::iter::once(&"reserve").chain(line)).unwrap();
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        line.args.ask(now).unwrap()
    }

    #[test]
    fn what_is_typed_is_what_is_asked() {
        let plain = ask(&["lhc"]);
        assert_eq!((plain.rate, plain.remote, plain.start), (None, None, None));
        assert_eq!(plain.duration, Span::from_secs(3600));
        let full = ask(&[
            "lhc",
            "--rate",
            "600Mbit",
            "--min-rate",
            "100Mbit",
            "--class",
            "dedicated",
            "--for",
            "2h",
            "--start",
            "+90m",
            "--to",
            "busan/dtn-busan/data0",
            "--via",
            "wan",
            "--nic",
            "shared",
            "--device",
            "data1",
            "--wait",
            "1d",
            "--tenant",
            "hep",
        ]);
        insta::assert_json_snapshot!(full);
    }

    #[test]
    fn a_gateway_is_asked_for_instead_of_another_domain() {
        let asked = ask(&["lhc", "--gateway", "internet", "--nic", "shared"]);
        assert_eq!(asked.gateway, Some("internet".parse().unwrap()));
        assert_eq!(asked.remote, None);
        // what a refusal offers to type is asked of the same gateway
        let again = negotiation::take_instead(&asked, Rate::from_bps(600_000_000), "dtnctl");
        assert!(again.contains(" --gateway internet"), "{again}");
        let both = ["reserve", "lhc", "--gateway", "internet", "--to", "busan"];
        let error = Line::try_parse_from(both).unwrap_err().to_string();
        assert!(error.contains("cannot be used with"), "{error}");
    }

    #[test]
    fn an_instant_or_an_endpoint_that_cannot_be_read_says_how_to_write_it() {
        for (line, says) in [
            (["lhc", "--start", "tomorrow"], "+2h"),
            (["lhc", "--to", "busan/data0"], "NODE/NIC"),
            (["lhc", "--rate", "600"], "600Mbit"),
            (["lhc", "--nic", "own"], "dedicated or shared"),
        ] {
            let line: Vec<&str> = std::iter::once("reserve").chain(line).collect();
            let error = Line::try_parse_from(line).unwrap_err().to_string();
            assert!(error.contains(says) || error.contains("9.5Gbit"), "{error}");
        }
    }
}
