//! `dtnctl support-bundle`: everything that somebody far away needs to find out what is wrong, in one
//! file, without the secrets of the host.
//!
//! * [`gather`]: what goes in; works with dead daemons.
//! * [`redact`], [`secrets`]: what must not.
//! * [`pack`]: bounded, for the owner alone, with a list of what is inside and what is not.

mod gather;
mod pack;
mod redact;
mod secrets;

use crate::{
    cli::Context,
    failure::{Done, Failure, Outcome},
    wording::{count, quoted_path, second},
};
use pack::Bundle;
use redact::Redactor;
use std::path::PathBuf;

/// Options of `support-bundle`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to make; dtn-support-HOST-TIME.tar.gz in this folder when absent
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Gathers and packs.
pub(crate) async fn run(args: &Args, context: &Context) -> Outcome {
    let config = context.place.below(dtnd::config::DEFAULT_FILE);
    let config = dtnd::config::load(&config).ok().map(|loaded| loaded.config);
    let kubeconfig = config
        .as_ref()
        .and_then(|config| config.kubernetes.as_ref())
        .and_then(|node| node.kubeconfig.clone());
    let host = match &config {
        Some(config) => config.host.to_string(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "host".to_owned(), |name| name.trim().to_owned()),
    };
    let plain: String = second(context.now)
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let folder = format!("dtn-support-{host}-{plain}");
    let file = args
        .output
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    if file.exists() {
        return Err(
            Failure::because(format!("{} is there already", file.display()))
                .or_next("name another file with --output, or remove it"),
        );
    }
    context.progress(format_args!("gathering into {}", file.display()));
    let known = secrets::known(&context.place.root, kubeconfig.as_deref());
    let mut bundle = Bundle::new(Redactor::knowing(known.iter().map(String::as_str)));
    gather::all(context, &mut bundle).await;
    if !crate::doctor::is_root() {
        bundle.leave_out("what only root can read", "dtnctl did not run as root");
    }
    let title = format!("Support bundle of {host}, {}", second(context.now));
    let size = bundle
        .write(&file, &folder, &title, context.now.as_second())
        .map_err(|error| {
            anyhow::Error::new(error).context(format!("writing {}", file.display()))
        })?;
    let list = bundle.list(&title);
    if context.json {
        let answer =
            serde_json::json!({"file": file, "bytes": size, "members": bundle.len(), "list": list});
        return crate::answer::json(&answer);
    }
    Ok(Done::text(format!(
        "{list}\n{}: {size} bytes, {}\n",
        file.display(),
        count(bundle.len(), "member")
    ))
    .next(format!(
        "look into it before you give it away: tar -xOf {} | less",
        quoted_path(&file)
    )))
}
