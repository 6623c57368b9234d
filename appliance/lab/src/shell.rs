//! Running the machine's own programs: each with a deadline, each failure with the whole command,
//! its status and what it said.

use std::{ffi::OsStr, process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// A program that did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShellError {
    /// It could not be started.
    #[error("starting {command}: {source}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It was not done in time and was ended.
    #[error("{command}: not done after {} s and ended", .after.as_secs())]
    Late {
        /// The command line.
        command: String,
        /// How long it had.
        after: Duration,
    },
    /// It failed.
    #[error("{command}: {status}: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// Its status.
        status: std::process::ExitStatus,
        /// The end of what it said.
        said: String,
    },
}

/// For programs that only talk to the kernel.
pub const SHORT: Duration = Duration::from_secs(20);

/// Runs a program; gives its standard output.
pub async fn run<I, S>(
    program: &str,
    arguments: I,
    deadline: Duration,
) -> Result<String, ShellError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    output(command, None, deadline).await
}

/// Runs a program that reads its work from standard input.
pub async fn feed(
    program: &str,
    arguments: &[&str],
    input: &str,
    deadline: Duration,
) -> Result<String, ShellError> {
    let mut command = Command::new(program);
    command.args(arguments);
    output(command, Some(input), deadline).await
}

/// Runs a prepared command; gives its standard output.
pub async fn output(
    mut command: Command,
    input: Option<&str>,
    deadline: Duration,
) -> Result<String, ShellError> {
    let line = line(&command);
    let start = |source| ShellError::Start {
        command: line.clone(),
        source,
    };
    command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    let work = async {
        if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
            // a program that fails early closes its input; its status says so better
            let _ = pipe.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let done = timeout(deadline, work)
        .await
        .map_err(|_| ShellError::Late {
            command: line.clone(),
            after: deadline,
        })?
        .map_err(start)?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&done.stderr).into_owned();
    if said.trim().is_empty() {
        said = String::from_utf8_lossy(&done.stdout).into_owned();
    }
    let skip = said.chars().count().saturating_sub(600);
    let said = said
        .chars()
        .skip(skip)
        .collect::<String>()
        .trim()
        .replace('\n', "; ");
    Err(ShellError::Failed {
        command: line,
        status: done.status,
        said,
    })
}

/// The command line, for messages.
fn line(command: &Command) -> String {
    let command = command.as_std();
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
