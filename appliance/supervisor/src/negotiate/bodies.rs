//! What is asked of the controller for a case: the bodies of its calls.

use super::{Case, HOLD_SECONDS};
use dtn_api::{
    Rate,
    slice::{AvailabilityQuery, Excess, Member, Mode, Qos, RemoteEnd, Role, Schedule, SliceSpec},
    stitch::StitchSpec,
};

/// What is to be held: a slice within the domain, or one that leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `POST /slices`.
    Slice(Box<SliceSpec>),
    /// `POST /stitches`.
    Stitch(Box<StitchSpec>),
}

/// The body of the hold. `None` before a NIC and a plan were decided.
pub fn wanted(case: &Case) -> Option<Wanted> {
    let plan = case.plan.as_ref()?;
    let qos = Qos {
        class: case.ask.class,
        rate_bps: plan.rate.bps(),
        mode: Mode::Pair,
        excess: Excess::Drop,
        burst_ms: 10,
    };
    let (name, tenant) = (case.ask.name.clone(), case.ask.tenant.clone());
    let members = members(case)?;
    Some(match remote(case) {
        Some(remote) => Wanted::Stitch(Box::new(StitchSpec {
            name,
            tenant,
            qos,
            schedule: plan.schedule,
            members,
            remote,
            addressing: None,
            hold_seconds: HOLD_SECONDS,
        })),
        None => Wanted::Slice(Box::new(SliceSpec {
            name,
            tenant,
            qos,
            members,
            open: false,
            schedule: plan.schedule,
            path: None,
            addressing: None,
            auto_provision: true,
            commit: false,
            hold_seconds: HOLD_SECONDS,
            labels: std::collections::BTreeMap::from([(
                "negotiation".to_owned(),
                case.id.to_string(),
            )]),
        })),
    })
}

/// The body of the question. `None` before a NIC was decided.
pub(crate) fn query(
    case: &Case,
    schedule: Schedule,
    rate: Option<Rate>,
) -> Option<AvailabilityQuery> {
    Some(AvailabilityQuery {
        class: case.ask.class,
        mode: Mode::Pair,
        members: members(case)?,
        schedule,
        rate_bps: rate.map(Rate::bps),
        remote: remote(case),
    })
}

/// The other domain, unless the other end is within this one.
fn remote(case: &Case) -> Option<RemoteEnd> {
    match case.nic.as_ref()?.far {
        Some(_) => None,
        None => case.ask.remote.clone(),
    }
}

/// The own NIC, and the other end within the domain. The border link of a slice that leaves the
/// domain is the controller's to add.
fn members(case: &Case) -> Option<Vec<Member>> {
    let nic = case.nic.as_ref()?;
    let far_role = match case.ask.gateway {
        Some(_) => Role::Gateway,
        None => Role::Endpoint,
    };
    let far = nic.far.iter().map(|host| (host, far_role));
    let ends = std::iter::once((&nic.host, Role::Endpoint)).chain(far);
    let member = |(host, role): (&dtn_api::HostId, Role)| Member::of_host(host.clone(), role);
    Some(ends.map(member).collect())
}
