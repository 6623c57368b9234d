//! NICs that join a slice after it was reserved, and leave it. Pure.
//!
//! A host lets its own NIC join an open slice when it prepares a pod. Nobody has to take it out again:
//! once nothing of its host holds a lease on it, it is idle, and after a while it goes.

use crate::{
    leases::LeaseRow,
    slices::{Booking, MOST_MEMBERS},
};
use dtn_api::{
    HostId, Problem, Rate,
    host::{Host, HostKind},
    problem::Kind,
    slice::{Member, Mode, Role},
};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// How long a NIC that joined stays without a lease, in seconds: a pod that is started anew finds it
/// there, and one that is being prepared has its lease long before.
pub const IDLE_SECONDS: u32 = 120;
/// Label of a lease: the NIC, by its name on its node, that the interface sits on.
pub const NIC_LABEL: &str = "nic";

/// A NIC as people name it.
pub fn name_of(host: &Host) -> String {
    format!("{}/{}", host.spec.node, host.spec.nic)
}

/// Whether the body of a join says the same as its path.
pub fn check(host: &HostId, member: &Member) -> Result<(), Problem> {
    let wrong = |field: &str, why: String| {
        let problem = Problem::new(Kind::InvalidRequest, "the member is not valid");
        Err(problem.at(field, why))
    };
    if member.host.as_ref().is_some_and(|named| named != host) || member.border_link.is_some() {
        return wrong("/host", format!("the path names {host}"));
    }
    if member.role == Role::Gateway {
        let why = "a slice is reserved with its gateway: who joins is an endpoint";
        return wrong("/role", why.into());
    }
    if member.joined {
        return wrong("/joined", "is the controller's to say: leave it out".into());
    }
    Ok(())
}

/// Whether a NIC may join: for an operator, or for its own host (`itself`).
pub fn may_join(
    booking: &Booking,
    nic: &Host,
    itself: bool,
    now: Timestamp,
) -> Result<(), Problem> {
    let (slice, spec) = (&booking.slice, &booking.slice.spec);
    let name = name_of(nic);
    let no = |kind: Kind, why: String| {
        let problem = format!("NIC {name} cannot join slice {}: {why}", spec.name);
        Err(Problem::new(kind, problem))
    };
    if !slice.booked_at(now) {
        return no(Kind::StateConflict, "it has ended: reserve it anew".into());
    }
    if slice.stitch.is_some() || spec.members.iter().any(|m| m.border_link.is_some()) {
        let why = "its members were agreed with another domain: reserve another slice";
        return no(Kind::StateConflict, why.into());
    }
    if spec.qos.mode == Mode::Pair {
        let why = "it is between two (mode pair): reserve one with mode hose, as dtnctl slice reserve \
                   --between does";
        return no(Kind::StateConflict, why.into());
    }
    if itself && !spec.open {
        let why = format!(
            "it is not open to hosts: dtnctl slice join {} {name} by an operator, or reserve it with \
             --open",
            spec.name
        );
        return no(Kind::Forbidden, why);
    }
    if spec.members.len() >= MOST_MEMBERS {
        let why = format!("it has {MOST_MEMBERS} members, the most that are possible");
        return no(Kind::StateConflict, why);
    }
    Ok(())
}

/// A refusal for want of bandwidth as it is to who joins: the rate is the slice's, not theirs to lower.
pub fn too_full(booking: &Booking, nic: &Host, problem: Problem) -> Problem {
    let tight = problem
        .errors
        .iter()
        .min_by_key(|fault| fault.available_bps);
    let Some((link, left)) = tight.and_then(|f| Some((f.link.as_ref()?, f.available_bps?))) else {
        return problem;
    };
    let (name, slice) = (name_of(nic), &booking.slice.spec);
    let detail = format!(
        "NIC {name} cannot join slice {}: link {link} has {} left of the {} that each member of the slice \
         has: use another NIC, or a slice of a lower rate",
        slice.name,
        Rate::from_bps(left),
        Rate::from_bps(slice.qos.rate_bps)
    );
    Problem { detail, ..problem }
}

/// Whether an operator may take a NIC out.
pub fn may_leave<'a>(
    booking: &Booking,
    nic: &Host,
    mut leases: impl Iterator<Item = &'a LeaseRow>,
    hosts: &BTreeMap<HostId, Host>,
) -> Result<(), Problem> {
    let (slice, spec) = (&booking.slice, &booking.slice.spec);
    let name = name_of(nic);
    let no = |why: String| {
        let problem = format!("NIC {name} cannot leave slice {}: {why}", spec.name);
        Err(Problem::new(Kind::StateConflict, problem))
    };
    let own = spec
        .members
        .iter()
        .find(|m| m.host.as_ref() == Some(&nic.id));
    if own.is_some_and(|member| member.role == Role::Gateway) {
        return no("it is its gateway's: reserve another slice".into());
    }
    // who joined goes again, so a slice of those alone would be none
    let stays = |member: &&Member| !member.joined && member.host.as_ref() != Some(&nic.id);
    if slice.stitch.is_some()
        || spec.qos.mode == Mode::Pair
        || spec.members.iter().filter(stays).count() < 2
    {
        let why = format!(
            "too few are left then of those that it is for: dtnctl slice release {}",
            spec.name
        );
        return no(why);
    }
    if let Some(row) = leases.find(|row| sits_on(row, nic, hosts)) {
        let why = format!(
            "{} holds a lease on it: what has it goes first (dtnctl undeploy, of a pod)",
            row.lease.client_id
        );
        return no(why);
    }
    Ok(())
}

/// Since when nothing is on each NIC that joined by itself.
pub fn idle(
    booking: &Booking,
    hosts: &BTreeMap<HostId, Host>,
    leases: &[&LeaseRow],
    now: Timestamp,
) -> BTreeMap<HostId, Timestamp> {
    let joined = booking.slice.spec.members.iter().filter(|m| m.joined);
    let idle = joined
        .filter_map(|member| member.host.as_ref())
        .filter(|id| {
            let nic = hosts.get(*id).filter(|nic| nic.spec.kind == HostKind::Nic);
            // one that is not declared any more has nothing on it
            nic.is_none_or(|nic| !leases.iter().any(|row| sits_on(row, nic, hosts)))
        });
    idle.map(|id| (id.clone(), booking.idle.get(id).copied().unwrap_or(now)))
        .collect()
}

/// Whether the interface that has this lease may sit on this NIC. One whose hardware address is a
/// NIC's is that NIC; of the others one that does not say where it sits may sit on each of its node's.
pub fn sits_on(row: &LeaseRow, nic: &Host, hosts: &BTreeMap<HostId, Host>) -> bool {
    let own = HostId::untagged(row.lease.mac);
    if !row.occupies() || own == nic.id {
        return row.occupies();
    }
    let is_another = hosts
        .get(&own)
        .is_some_and(|other| other.spec.kind == HostKind::Nic);
    let label = row.lease.labels.get(NIC_LABEL);
    !is_another
        && row.node.as_ref() == Some(&nic.spec.node)
        && label.is_none_or(|label| *label == nic.spec.nic.as_str())
}

#[cfg(test)]
mod tests;
