//! The one question that is asked before anything is changed.

use crate::Failure;
use std::io::{self, BufRead, IsTerminal, Write};

/// Asks, unless it was said beforehand. Without a terminal nobody can be asked, and silence is no
/// consent.
pub(crate) fn ask(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let refused = |why: &str| Failure::Refused(format!("{why}: nothing was changed"));
    if !io::stdin().is_terminal() {
        return Err(refused("there is no terminal to ask on; give --yes"));
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(refused("not confirmed")),
    }
}
