//! `dtnctl`: one program for people and scripts to ask and steer a Data Transfer Node.
//!
//! It speaks to the host's supervisor `dtnd` and to the domain's controller `vdnd` on their unix
//! sockets, decides nothing by itself, and answers at once: one thread, no TLS. Pods of a cluster it
//! asks the cluster for, which is the one thing that it does over TLS.
//!
//! A walk through the files: `cli` (what can be typed) → `place` (which host, which socket) → the
//! verbs, a file each → `table` and `wording` (for eyes) → `failure` (stderr and exit codes).

mod access;
mod answer;
mod apply;
mod between;
mod cli;
mod cluster;
mod config;
mod deploy;
#[cfg(test)]
mod docs;
mod doctor;
mod domain;
mod enrolled;
mod explain;
mod fabric;
mod failure;
mod gateway;
mod host;
mod invitation;
mod joining;
mod kubernetes;
mod lab;
mod lease;
mod negotiation;
mod nics;
mod place;
mod pods;
mod reserve;
mod revocation;
mod rule_file;
mod rules;
mod slice;
mod status;
mod support;
mod table;
mod wording;

use clap::Parser;
use cli::{Cli, Context, Verb};
use failure::{Failure, Outcome};
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context {
        place: cli.place(),
        json: cli.json,
        now: jiff::Timestamp::now(),
        watched: io::stderr().is_terminal(),
    };
    let outcome = match cli.verb {
        // the lab makes namespaces and a runtime of its own, before any thread exists
        Verb::Lab(args) => match lab::run(args) {
            Ok(code) => return code,
            Err(error) => Err(Failure::from(error)),
        },
        Verb::Config(args) => carry_out(config::run(args, &context)),
        Verb::Status(args) => carry_out(status::run(&args, &context)),
        Verb::Doctor(args) => carry_out(doctor::run(&args, &context)),
        Verb::SupportBundle(args) => carry_out(support::run(&args, &context)),
        Verb::Nics => carry_out(nics::run(&context)),
        Verb::Slice(args) => carry_out(slice::run(args, &context)),
        Verb::Lease(args) => carry_out(lease::run(&args, &context)),
        Verb::Domain(args) => carry_out(domain::run(args, &context)),
        Verb::Gateway(args) => carry_out(gateway::run(args, &context)),
        Verb::Access(args) => carry_out(access::run(args, &context)),
        Verb::Fabric(args) => carry_out(fabric::run(args, &context)),
        Verb::Host(args) => carry_out(host::run(args, &context)),
        Verb::Cluster(args) => carry_out(cluster::run(args, &context)),
        Verb::Deploy(args) => carry_out(deploy::run(&args, &context)),
        Verb::Undeploy(args) => carry_out(deploy::undeploy(&args, &context)),
        Verb::Pods(args) => carry_out(pods::run(args, &context)),
    };
    match outcome {
        Ok(done) => {
            let next = done.next.filter(|_| !context.json);
            let next = next.map(|next| format!("next: {next}\n"));
            say(&done.out, &next.unwrap_or_default(), 0)
        }
        Err(failure) => say(failure.out(), &failure.message(), failure.code()),
    }
}

/// Carries out a verb that speaks to a daemon, on this thread alone.
fn carry_out(verb: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| anyhow::Error::new(error).context("starting the runtime"))?
        .block_on(verb)
}

/// The answer on stdout, the rest on stderr.
fn say(out: &str, rest: &str, code: u8) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(out.as_bytes())
        .and_then(|()| stdout.flush());
    let (rest, code) = match written {
        Ok(()) => (rest.to_owned(), code),
        // `dtnctl … | head` has seen enough
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => (rest.to_owned(), code),
        Err(error) => {
            let failure = Failure::from(anyhow::Error::new(error).context("writing to stdout"));
            (failure.message(), failure.code())
        }
    };
    // nobody is left to be told when stderr is closed
    let _ = io::stderr().write_all(rest.as_bytes());
    ExitCode::from(code)
}
