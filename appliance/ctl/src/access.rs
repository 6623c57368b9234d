//! `dtnctl access`: who may pass a gateway (vNAC). Rules are written one by one or from a file, and
//! asked about.

use crate::{
    answer::{json, read},
    apply,
    cli::Context,
    explain,
    failure::{Done, Outcome, while_doing},
    place::{CARRY_OUT, Daemon},
    rule_file::network,
    rules::{self, line},
};
use dtn_api::{
    Name,
    gateway::{
        AccessAction, AccessMatch, AccessRule, Direction, LAST_RULE, PortRange, Protocol,
        StandingRule,
    },
};
use ipnet::IpNet;
use jiff::Timestamp;

/// Options of `access`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The rules in order, and what each has decided about
    List {
        /// Name of the gateway
        gateway: Name,
    },
    /// Put the rules of a file in place of all that there are
    Apply(apply::Args),
    /// Write one rule, new or in place of the one of its number
    Set(Box<Set>),
    /// Take rules out
    #[command(alias = "delete")]
    Remove {
        /// Name of the gateway
        gateway: Name,
        /// Numbers of the rules
        #[arg(required = true, value_parser = number())]
        number: Vec<u16>,
    },
    /// Which rule decides about a packet, and about its answer
    Explain(explain::Args),
}

#[derive(Debug, clap::Args)]
struct Set {
    /// Name of the gateway
    gateway: Name,
    /// Its number, 1 to 9999: its place in the order
    #[arg(value_parser = number())]
    number: u16,
    /// What it does: allow or deny
    action: AccessAction,
    /// Which way the packets go that it describes: outbound or inbound
    direction: Direction,
    /// The slice that it is for; every slice of the gateway when absent
    #[arg(long)]
    slice: Option<Name>,
    /// The slice's tenant
    #[arg(long, requires = "slice", default_value_t = dtn_api::slice::default_tenant())]
    tenant: Name,
    /// Where packets come from: a network or an address
    #[arg(long, value_name = "CIDR", value_parser = network)]
    from: Option<IpNet>,
    /// Where they go
    #[arg(long, value_name = "CIDR", value_parser = network)]
    to: Option<IpNet>,
    /// Their protocol: tcp, udp, sctp or icmp
    #[arg(long)]
    proto: Option<Protocol>,
    /// Ports that they come from, as 443 or 50000-51000, several with commas
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    from_port: Vec<PortRange>,
    /// Ports that they go to
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    to_port: Vec<PortRange>,
    /// When it begins to be in force, as 2027-01-10T06:00:00Z
    #[arg(long, value_name = "TIME")]
    start: Option<Timestamp>,
    /// When it ends
    #[arg(long, value_name = "TIME")]
    end: Option<Timestamp>,
    /// An answer passes only while the gateway's host knows what it answers
    #[arg(long)]
    stateful: bool,
    /// The gateway's host logs the first packets that it decides about
    #[arg(long)]
    log: bool,
    /// Why it is there
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    note: String,
}

/// A number of a rule.
fn number() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(LAST_RULE))
}

impl Set {
    fn rule(&self) -> AccessRule {
        AccessRule {
            priority: self.number,
            action: self.action,
            direction: self.direction,
            slice: self.slice.clone(),
            tenant: self.tenant.clone(),
            packets: AccessMatch {
                src: self.from,
                dst: self.to,
                proto: self.proto,
                src_ports: self.from_port.clone(),
                dst_ports: self.to_port.clone(),
            },
            stateful: self.stateful,
            schedule: rules::schedule(self.start, self.end),
            log: self.log,
            note: self.note.clone(),
        }
    }
}

/// Asks the controller on this host.
pub(crate) async fn run(args: Args, context: &Context) -> Outcome {
    match args.verb {
        Verb::List { gateway } => rules::list(&gateway, context).await,
        Verb::Apply(args) => apply::run(&args, context).await,
        Verb::Set(args) => set(&args, context).await,
        Verb::Remove { gateway, number } => remove(&gateway, &number, context).await,
        Verb::Explain(args) => explain::run(&args, context).await,
    }
}

async fn set(args: &Set, context: &Context) -> Outcome {
    let Set {
        gateway, number, ..
    } = args;
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let answer = link
        .put(
            &format!("/gateways/{gateway}/access_rules/{number}"),
            None,
            &args.rule(),
        )
        .await
        .map_err(|error| {
            while_doing(
                format!("writing access rule {number} of gateway {gateway}"),
                error,
            )
        })?;
    if context.json {
        return json(&answer);
    }
    let standing: StandingRule = read(&answer, "the access rule")?;
    let done = Done::text(format!(
        "rule {number} of gateway {gateway}: {}\n",
        line(&standing.rule)
    ));
    Ok(done.next(format!(
        "see all of them in order: {} access list {gateway}",
        context.place.command()
    )))
}

async fn remove(gateway: &Name, numbers: &[u16], context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let path = format!("/gateways/{gateway}/access_rules");
    let mut text = String::new();
    for (done, number) in numbers.iter().enumerate() {
        let removed = link.delete(&format!("{path}/{number}")).await;
        removed.map_err(|error| while_doing(taking_out(gateway, numbers, done), error))?;
        text += &format!("gateway {gateway} has no rule {number}\n");
    }
    if context.json {
        let left = link.get(&path).await.map_err(|error| {
            while_doing(
                format!("reading the access rules of gateway {gateway}"),
                error,
            )
        })?;
        return json(&left);
    }
    Ok(Done::text(text))
}

/// What was being done when the rule at `done` could not be taken out; those before it are gone.
fn taking_out(gateway: &Name, numbers: &[u16], done: usize) -> String {
    let (gone, rest) = numbers.split_at(done.min(numbers.len()));
    let listed = |numbers: &[u16]| {
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        numbers.join(", ")
    };
    let number = listed(rest.get(..1).unwrap_or_default());
    match gone {
        [] => format!("taking access rule {number} of gateway {gateway} out"),
        _ => format!(
            "taking access rule {number} of gateway {gateway} out, after {}",
            listed(gone)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        set: Set,
    }
    fn rule(line: &str) -> Result<AccessRule, clap::Error> {
        let words = std::iter::once("set").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.set.rule())
    }

    #[test]
    fn what_is_typed_is_the_rule() {
        let plain = rule("internet 100 deny inbound").unwrap();
        assert_eq!(line(&plain), "deny inbound anything");
        let full = rule(
            "internet 200 allow outbound --slice web --tenant hep --from 10.20.0.0/24 \
             --to 198.51.100.7 --proto tcp --from-port 1024-65535 --to-port 443,50000-51000 \
             --start 2027-01-10T06:00:00Z --end 2027-01-11T06:00:00Z --stateful --log --note mirrors",
        );
        insta::assert_json_snapshot!("access_set", full.unwrap());
    }

    #[test]
    fn what_was_taken_out_before_a_failure_is_told() {
        let gateway = "internet".parse().unwrap();
        let said = |done| taking_out(&gateway, &[10, 20, 30], done);
        assert_eq!(said(0), "taking access rule 10 of gateway internet out");
        assert_eq!(
            said(2),
            "taking access rule 30 of gateway internet out, after 10, 20"
        );
    }

    #[test]
    fn what_cannot_be_read_says_how_to_write_it() {
        for (line, says) in [
            ("internet 0 allow outbound", "1..=9999"),
            ("internet 10000 allow outbound", "1..=9999"),
            ("internet 1 permit outbound", "allow deny"),
            ("internet 1 allow out", "outbound inbound"),
            ("internet 1 allow outbound --to host", "192.0.2.0/24"),
            ("internet 1 allow outbound --to-port 2-1", "50000-51000"),
            ("internet 1 allow outbound --proto gre", "tcp udp sctp icmp"),
            ("internet 1 allow outbound --tenant hep", "--slice"),
        ] {
            let error = rule(line).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
