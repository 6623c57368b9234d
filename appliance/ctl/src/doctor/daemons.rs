//! Who of the two daemons answers, what each says of itself, and whether the engines of pods do.

use super::files::Configured;
use crate::{answer::read, cli::Context, failure::Failure, place::Daemon};
use dtn_api::local::Status;
use dtn_tuning::health::{Findings, Level};
use std::{os::unix::net::UnixStream, path::Path, time::Duration};

/// For an answer of a daemon that is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who answered.
pub(super) struct Answers {
    /// The supervisor did.
    pub(super) dtnd: bool,
}

pub(super) async fn ask(context: &Context, configured: &Configured, say: &mut Findings) -> Answers {
    let dtnd = supervisor(context, configured, say).await;
    controller(context, configured, say).await;
    if let Some(config) = &configured.host {
        if !dtnd {
            // with dtnd up, its own checks told it
            engine(&config.podman_socket, say);
        }
        if let Some(node) = &config.kubernetes {
            kubelet(&node.kubelet_dir, say);
        }
    }
    Answers { dtnd }
}

async fn supervisor(context: &Context, configured: &Configured, say: &mut Findings) -> bool {
    let link = match context.place.connect(Daemon::Dtnd, PATIENCE) {
        Ok(link) => link,
        Err(failure) => {
            silent(say, "dtnd", configured.wants_host, &failure);
            return false;
        }
    };
    let answer = link.get("/status").await.map_err(anyhow::Error::new);
    let status = answer.and_then(|answer| {
        read::<Status>(&answer, "the status").map_err(|failure| anyhow::anyhow!(failure.message()))
    });
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            let text = format!("it listens and gives no status: {error:#}");
            say.mend(
                Level::Alarm,
                "dtnd",
                text,
                "look at its log",
                "journalctl -u dtnd -n 50",
            );
            return true;
        }
    };
    say.ok(
        "dtnd",
        format!(
            "{} answers, started {}",
            status.version,
            crate::wording::distance(status.started_at, context.now)
        ),
    );
    for check in &status.checks {
        if check.ok {
            say.ok(&format!("dtnd {}", check.name), check.detail.clone());
        } else {
            say.mend(
                Level::Warning,
                &format!("dtnd {}", check.name),
                check.detail.clone(),
                "the text says what is missing",
                format!("{} status", context.place.command()),
            );
        }
    }
    if status.version != env!("CARGO_PKG_VERSION") {
        say.mend(
            Level::Warning,
            "versions",
            format!(
                "dtnd is {}, dtnctl is {}",
                status.version,
                env!("CARGO_PKG_VERSION")
            ),
            "restart dtnd after an update: pods go on meanwhile",
            "systemctl restart dtnd",
        );
    }
    true
}

async fn controller(context: &Context, configured: &Configured, say: &mut Findings) {
    let link = match context.place.connect(Daemon::Vdnd, PATIENCE) {
        Ok(link) => link,
        Err(failure) => return silent(say, "vdnd", configured.wants_domain, &failure),
    };
    match link.get("/readyz").await {
        Ok(_) => say.ok("vdnd", "it answers and is ready"),
        Err(error) => say.mend(
            Level::Alarm,
            "vdnd",
            format!("it listens and is not ready: {error}"),
            "look at its log",
            "journalctl -u vdnd -n 50",
        ),
    }
}

/// Nobody listens. That is an alarm where the configuration wants the daemon here.
fn silent(say: &mut Findings, name: &str, wanted: bool, failure: &Failure) {
    let Failure::Unreachable { what, next } = failure else {
        say.say(
            Level::Note,
            "not looked at",
            format!("{name}: {}", failure.message().trim_end()),
        );
        return;
    };
    if what.contains("permission denied") {
        say.say(Level::Note, "not looked at", format!("{name}: {what}"))
            .next = Some(next.clone());
    } else if wanted {
        let command = next
            .split_once(": ")
            .map_or(next.as_str(), |(_, command)| command);
        let command = command.split(" (").next().unwrap_or(command);
        say.mend(Level::Alarm, name, what.clone(), next.clone(), command);
    } else {
        say.ok(name, "not configured here, and it does not run");
    }
}

fn engine(socket: &Path, say: &mut Findings) {
    let shown = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => say.ok("podman", format!("somebody listens on {shown}")),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            say.say(
                Level::Note,
                "not looked at",
                format!("podman: {shown}: {error}"),
            );
        }
        Err(error) => say.mend(
            Level::Warning,
            "podman",
            format!("nobody answers on {shown}: {error}"),
            "start podman's service, or correct podman.socket",
            "systemctl enable --now podman.socket",
        ),
    }
}

fn kubelet(folder: &Path, say: &mut Findings) {
    let plugins = folder.join("plugins_registry");
    if plugins.is_dir() {
        say.ok(
            "kubelet",
            format!("it has a folder for drivers: {}", plugins.display()),
        );
    } else {
        say.mend(
            Level::Warning,
            "kubelet",
            format!(
                "there is no {}: no kubelet runs here, or it has another folder",
                plugins.display()
            ),
            "start the kubelet, or correct kubernetes.kubelet-dir",
            "systemctl status kubelet",
        );
    }
}
