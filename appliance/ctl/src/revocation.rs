//! Keeping a host, a cluster or a domain out from now on: the same call of vdnd, and the same account of what ended.

use crate::{
    answer::{json, read},
    cli::Context,
    failure::{Done, Outcome, while_doing},
    place::{CARRY_OUT, Daemon},
    table::pairs,
    wording::instant,
};
use dtn_api::{
    Name,
    node::{Revoke, Revoked},
};
use jiff::Timestamp;

/// Options of `host revoke`, `cluster revoke` and `domain revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Who, by name
    pub(crate) name: Name,
    /// Why, for those who read the list later
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Asks for it. `noun` is what is revoked, of `collection` (a path of the API), `doing` is said when it
/// fails, and `again` is the next step.
pub(crate) async fn revoke(
    noun: &'static str,
    collection: &str,
    args: &RevokeArgs,
    doing: String,
    again: String,
    context: &Context,
) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let body = Revoke {
        reason: args.reason.clone(),
    };
    let path = format!("{collection}/{}/actions/revoke", args.name);
    let answer = link
        .post(&path, &body)
        .await
        .map_err(|error| while_doing(doing, error))?;
    if context.json {
        return json(&answer);
    }
    let done: Revoked = read(&answer, "the revocation")?;
    Ok(Done::text(shown(noun, &done, context.now)).next(again))
}

/// What a revocation came to.
fn shown(noun: &str, done: &Revoked, now: Timestamp) -> String {
    let list = |names: &[Name]| {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(" ")
        }
    };
    let mut rows = vec![
        (noun, done.name.to_string()),
        (
            "revoked",
            format!(
                "{} by {}",
                instant(done.revocation.at, now),
                done.revocation.by
            ),
        ),
    ];
    rows.extend(
        done.revocation
            .reason
            .clone()
            .map(|reason| ("reason", reason)),
    );
    // a cluster has nothing of its own
    if noun != "cluster" {
        rows.push(("slices ended", list(&done.ended)));
    }
    if noun == "host" {
        rows.push(("go on without it", list(&done.left)));
        rows.push(("gateways forgotten", list(&done.gateways)));
        rows.push(("addresses back", done.leases.to_string()));
        rows.push(("endpoints forgotten", done.hosts.to_string()));
    }
    pairs(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_with_a_host_is_told() {
        let done: Revoked = serde_json::from_value(serde_json::json!({
            "name": "dtn2", "ended": ["lhc", "sky"], "left": [],
            "revocation": {"at": "2027-01-10T05:00:00Z", "by": "admin", "reason": "stolen"},
            "leases": 3, "gateways": ["internet"], "hosts": 4,
        }))
        .unwrap();
        let now = "2027-01-10T06:00:00Z".parse().unwrap();
        insta::assert_snapshot!("host_revoked", shown("host", &done, now));
    }
}
