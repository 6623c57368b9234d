//! The command line: what can be typed, and what it means. Verbs are in a file each.

use crate::{
    access, cluster, config, deploy, doctor, domain, fabric, gateway, host, lab, lease,
    place::{LAB_STATE, Place},
    pods, slice, status, support,
};
use clap::{Parser, Subcommand};
use jiff::Timestamp;
use std::path::PathBuf;

/// Heading of the options that every verb has.
const WHERE: &str = "Where and how";

/// Ask and steer a Data Transfer Node: its NICs, slices, leases, pods, and its domain.
#[derive(Debug, Parser)]
#[command(
    name = "dtnctl",
    version,
    after_long_help = exit_codes(),
    after_help = "dtnctl --help explains every option and the exit codes",
    propagate_version = false,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// The folder that the host's files are below
    #[arg(
        long,
        global = true, help_heading = WHERE,
        value_name = "DIR",
        default_value = "/",
        conflicts_with = "site"
    )]
    root: PathBuf,
    /// A site of the lab instead of this host
    #[arg(long, global = true, help_heading = WHERE, value_name = "NAME")]
    site: Option<String>,
    /// The lab's state folder, for --site
    #[arg(long, global = true, help_heading = WHERE, value_name = "DIR", default_value = LAB_STATE)]
    state: PathBuf,
    /// Print what the daemon answered, for programs
    #[arg(long, global = true, help_heading = WHERE)]
    pub(crate) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

impl Cli {
    /// The host that is meant.
    pub(crate) fn place(&self) -> Place {
        match &self.site {
            Some(name) => Place::site(name, self.state.clone()),
            None => Place::host(self.root.clone()),
        }
    }
}

/// What `dtnctl` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// How this host stands, check by check, and what to do next
    Status(status::Args),
    /// Whether host and NICs are what the site paid for, with what would mend it
    Doctor(doctor::Args),
    /// Everything that helps to find out what is wrong, in one file without secrets
    SupportBundle(support::Args),
    /// The NICs of this host, and which of them pods may have
    #[command(visible_alias = "nic")]
    Nics,
    /// Slices of reserved bandwidth: list, show, reserve, extend, release
    #[command(visible_alias = "slices")]
    Slice(slice::Args),
    /// Addresses that vDHCP gave: list
    #[command(visible_alias = "leases")]
    Lease(lease::Args),
    /// Gateways to external networks: list, show, delete
    #[command(visible_alias = "gateways")]
    Gateway(gateway::Args),
    /// Who may pass a gateway: list, apply, set, remove, explain
    Access(access::Args),
    /// Other domains: list, show, invite, accept, document, revoke, rotate-key
    #[command(visible_alias = "domains")]
    Domain(domain::Args),
    /// The switches that enforce slices: show, check
    Fabric(fabric::Args),
    /// Hosts of this domain: list, invite, join, renew, revoke
    #[command(visible_alias = "hosts")]
    Host(host::Args),
    /// Kubernetes clusters of this domain: invite
    #[command(visible_alias = "clusters")]
    Cluster(cluster::Args),
    /// Start a transfer pod from a template
    Deploy(Box<deploy::Args>),
    /// Take a pod down and bring its NIC home
    Undeploy(deploy::UndeployArgs),
    /// Pods that this host runs: list, show, logs
    #[command(visible_alias = "pod")]
    Pods(pods::Args),
    /// Configuration: check
    Config(config::Args),
    /// Two simulated sites on this machine: up, run, down
    Lab(lab::LabArgs),
}

/// What every verb knows besides its own arguments.
pub(crate) struct Context {
    /// The host that is meant.
    pub(crate) place: Place,
    /// Whether a program reads.
    pub(crate) json: bool,
    /// The time, read once.
    pub(crate) now: Timestamp,
    /// Whether a person watches stderr.
    pub(crate) watched: bool,
}

impl Context {
    /// Says how it is going, to a person who watches.
    pub(crate) fn progress(&self, text: impl std::fmt::Display) {
        if self.watched && !self.json {
            eprintln!("{text} …");
        }
    }
}

fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in crate::failure::EXIT_CODES {
        text.push_str(&format!("  {code:>2}  {meaning}\n"));
    }
    text.push_str(
        "\nAnswers are on stdout; the next step and failures are on stderr. With --json stdout is the\n\
         daemon's answer as its contract says, and stays so within a version of the contract.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for (code, meaning) in crate::failure::EXIT_CODES {
            assert!(help.contains(&format!("{code:>2}  {meaning}")), "{code}");
        }
    }

    #[test]
    fn plurals_are_lists() {
        for words in [
            "status",
            "doctor",
            "nics",
            "slices",
            "leases",
            "pods",
            "domains",
            "hosts",
            "gateways",
            "gateway list",
            "access list internet",
            "slice list",
            "lease list",
            "pods list",
            "domain list",
            "host list",
        ] {
            let line = std::iter::once("dtnctl").chain(["--site", "daejeon"]);
            let cli = Cli::try_parse_from(line.chain(words.split(' ')));
            assert!(cli.is_ok(), "{words}: {}", cli.unwrap_err());
        }
    }

    #[test]
    fn a_site_and_a_root_exclude_each_other() {
        let both = Cli::try_parse_from(["dtnctl", "--site", "a", "--root", "/x", "nics"]);
        assert!(both.is_err());
        let cli = Cli::try_parse_from(["dtnctl", "nics", "--site", "a", "--state", "/x"]).unwrap();
        assert_eq!(cli.place(), Place::site("a", "/x".into()));
    }
}
