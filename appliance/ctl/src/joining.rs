//! `dtnctl slice join` and `slice leave`: NICs of a slice that is reserved already, asked of the
//! controller on this host. What the slice takes of the links is booked anew, under the same admission.

use crate::{
    answer::{items, json, read},
    between::{self, End},
    cli::Context,
    failure::{Done, Failure, Outcome, while_doing},
    place::{CARRY_OUT, Daemon, Link},
    slice::promise,
    table::pairs,
};
use dtn_api::{
    HostId, Name,
    host::Host,
    slice::{Member, Role, Slice},
};
use jiff::Timestamp;

/// Options of `slice join` and `slice leave`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the slice
    name: Name,
    /// The NIC
    #[arg(value_name = "NODE/NIC")]
    nic: End,
    /// Whose slice, where several tenants have one of this name
    #[arg(long)]
    tenant: Option<Name>,
}

/// Lets a NIC in; success when it is a member already.
pub(crate) async fn join(args: &Args, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let (slice, nic) = found(args, &link, context).await?;
    let path = format!("/slices/{}/members/{nic}", slice.id);
    let answer = link
        .put(&path, None, &Member::of_host(nic, Role::Endpoint))
        .await
        .map_err(|error| while_doing(format!("letting {} join", args.nic), error))?;
    if context.json {
        return json(&answer);
    }
    let slice: Slice = read(&answer, "the slice")?;
    Ok(
        Done::text(pairs(&promise(&slice, context.now))).next(format!(
            "its host sees it within seconds: {} slice leave {} {} takes it out again",
            context.place.command(),
            args.name,
            args.nic
        )),
    )
}

/// Takes a NIC out; success when it is no member.
pub(crate) async fn leave(args: &Args, context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Vdnd, CARRY_OUT)?;
    let (slice, nic) = found(args, &link, context).await?;
    link.delete(&format!("/slices/{}/members/{nic}", slice.id))
        .await
        .map_err(|error| while_doing(format!("taking {} out", args.nic), error))?;
    Ok(Done::text(format!(
        "{} is no member of slice {}\n",
        args.nic, args.name
    )))
}

async fn found(args: &Args, link: &Link, context: &Context) -> Result<(Slice, HostId), Failure> {
    let slices = link
        .list(&format!("/slices?name={}", args.name))
        .await
        .map_err(|error| while_doing("asking for the slices", error))?;
    let slices: Vec<Slice> = items(&slices, "the slices")?;
    let slice = meant(slices, args, context.now)?;
    let hosts = link
        .list("/hosts")
        .await
        .map_err(|error| while_doing("asking for the hosts", error))?;
    let hosts: Vec<Host> = items(&hosts, "the hosts")?;
    let nic = between::chosen(std::slice::from_ref(&args.nic), &hosts);
    let nic = nic.map_err(|strange| between::unknown(&strange, context))?;
    let nic = nic.first().map(|host| host.id.clone());
    let nic = nic.ok_or_else(|| Failure::because("no NIC is named"))?;
    Ok((slice, nic))
}

/// The slice of this name that is booked, if it is one.
fn meant(slices: Vec<Slice>, args: &Args, now: Timestamp) -> Result<Slice, Failure> {
    let name = &args.name;
    let mut booked: Vec<Slice> = slices
        .into_iter()
        .filter(|slice| slice.spec.name == *name && slice.booked_at(now))
        .filter(|slice| args.tenant.as_ref().is_none_or(|t| *t == slice.spec.tenant))
        .collect();
    if booked.len() > 1 {
        let tenants: Vec<String> = booked.iter().map(|s| s.spec.tenant.to_string()).collect();
        return Err(Failure::because(format!(
            "tenants {} each have a slice {name}",
            tenants.join(", ")
        ))
        .or_next("say whose: --tenant"));
    }
    booked
        .pop()
        .ok_or_else(|| Failure::because(format!("no slice {name} is booked in this domain now")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(tenant: &str, end: &str) -> Slice {
        serde_json::from_value(serde_json::json!({
            "id": uuid::Uuid::new_v4(),
            "spec": {"name": "lhc", "tenant": tenant,
                "qos": {"class": "guaranteed", "rate_bps": 1, "mode": "hose"}, "members": [],
                "schedule": {"start": "2027-01-10T06:00:00Z", "end": end}},
            "status": {"reservation": "committed", "provision": "provisioned",
                "lifecycle": "created", "data_plane": "active", "generation": 1,
                "observed_generation": 1},
            "version": 1, "created_at": "2027-01-10T06:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn the_one_that_is_booked_is_meant_and_of_several_none() {
        let now = "2027-01-10T10:00:00Z".parse().unwrap();
        let (over, later) = ("2027-01-10T09:00:00Z", "2027-01-10T12:00:00Z");
        let args = |tenant: Option<&str>| Args {
            name: "lhc".parse().unwrap(),
            nic: "n1/data0".parse().unwrap(),
            tenant: tenant.map(|tenant| tenant.parse().unwrap()),
        };
        let all = [slice("hep", over), slice("hep", later), slice("bio", later)];
        let tenant = |all: &[Slice], whose| {
            let found = meant(all.to_vec(), &args(whose), now);
            found.map(|slice| slice.spec.tenant.to_string())
        };
        assert_eq!(tenant(&all[..2], None).unwrap(), "hep");
        assert_eq!(tenant(&all, Some("bio")).unwrap(), "bio");
        let several = tenant(&all, None).unwrap_err().message();
        assert!(several.contains("tenants hep, bio each have"), "{several}");
        assert!(several.contains("--tenant"), "{several}");
        let none = tenant(&all[..1], None).unwrap_err().message();
        assert!(none.contains("no slice lhc is booked"), "{none}");
    }
}
