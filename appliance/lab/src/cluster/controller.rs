//! The cluster's own controller, which negotiates with the domain for claims: invited and started as
//! an admin would do it.

use super::{Cluster, Starter, folder, objects};
use crate::{
    Options,
    pillar::{Pillar, Watch},
    place::Place,
    shell::{self, SHORT},
    site::Site,
};
use anyhow::{Context, Result};

/// The lease by which one copy leads.
const LEASE: &str = "dtn-cluster";

/// Invites it into the site's domain, lets it join, and waits until it leads.
pub async fn start(
    cluster: &Cluster,
    site: &Site,
    place: &Place,
    options: &Options,
    watch: &Watch,
) -> Result<Pillar> {
    let root = place.root(site.name);
    let mut invite = site.command(options.program("dtnctl"));
    invite
        .arg("--root")
        .arg(&root)
        .args(["cluster", "invite", site.name]);
    let word = shell::output(invite, None, SHORT)
        .await
        .with_context(|| format!("inviting the cluster of {}", site.name))?;
    let mut join = site.command(options.program("dtn-cluster"));
    join.arg("join").arg("--root").arg(&root).arg("-");
    shell::output(join, Some(&word), SHORT)
        .await
        .with_context(|| format!("the cluster of {} joins its domain", site.name))?;
    let starter = Starter {
        site,
        place,
        kit: &cluster.kit,
        watch,
    };
    let kubeconfig = objects::controller(&folder(place, site.name));
    let running = starter.run(
        "dtn-cluster",
        &options.program("dtn-cluster"),
        vec![
            "run".into(),
            format!("--root={}", root.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--namespace={}", objects::SYSTEM),
            format!("--name={}", site.name),
            "--health=127.0.0.1:8090".into(),
        ],
    )?;
    let lease = [
        "get",
        "lease",
        LEASE,
        "--namespace",
        objects::SYSTEM,
        "--output",
        "json",
    ];
    cluster
        .until(site, "dtn-cluster leads", &lease, |lease| {
            let holder = lease["spec"]["holderIdentity"].as_str();
            holder.is_some_and(|holder| !holder.is_empty())
        })
        .await?;
    Ok(running)
}
