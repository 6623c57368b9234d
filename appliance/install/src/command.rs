//! Programs of the host that are called: with a deadline, with nothing on standard input, and with
//! what they said when they fail.

use anyhow::{Context, Result, bail};
use std::{
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a program that ended said.
#[derive(Debug)]
pub(crate) struct Said {
    /// It ended with 0.
    pub(crate) good: bool,
    /// Its standard output.
    pub(crate) out: String,
    /// Its standard error.
    pub(crate) err: String,
}

/// Longest time for a word with a service manager.
pub(crate) const SHORT: Duration = Duration::from_secs(90);
/// Longest time for packages to be fetched and set up.
pub(crate) const LONG: Duration = Duration::from_secs(1800);

/// Calls a program and waits for its end.
pub(crate) fn call(program: &str, arguments: &[&str], deadline: Duration) -> Result<Said> {
    let doing = || format!("calling {program} {}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(doing)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let gather = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                // what cannot be read was not said
                let _ = pipe.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = gather(out.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let err = gather(err.map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let end = Instant::now() + deadline;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(doing)? {
            break status;
        }
        if Instant::now() > end {
            child.kill().with_context(doing)?;
            child.wait().with_context(doing)?;
            bail!("{}: not done after {} s", doing(), deadline.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    };
    Ok(Said {
        good: status.success(),
        out: out.join().unwrap_or_default(),
        err: err.join().unwrap_or_default(),
    })
}

/// Calls a program that must end well; what it said last is part of the error.
pub(crate) fn must(program: &str, arguments: &[&str], deadline: Duration) -> Result<String> {
    let said = call(program, arguments, deadline)?;
    if said.good {
        return Ok(said.out);
    }
    let lines: Vec<&str> = said.err.lines().chain(said.out.lines()).collect();
    let tail = &lines[lines.len().saturating_sub(12)..];
    bail!("{program} {}: {}", arguments.join(" "), tail.join("; "))
}

/// Calls a program that may fail or not be there; its output when it ended well.
pub(crate) fn may(program: &str, arguments: &[&str]) -> Option<String> {
    let said = call(program, arguments, Duration::from_secs(20)).ok()?;
    said.good.then_some(said.out)
}
