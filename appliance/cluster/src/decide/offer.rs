//! What a slice has for a wish: found by name, judged by its window, measured by what is left. Pure;
//! what cannot be had is said with the figures and what would help.

use super::{Reason, Slices, Verdict};
use crate::{
    claim::NicKey,
    decide::Nic,
    queue::{Place, Room},
};
use dtn_api::{
    HostId, Problem, Rate,
    cluster::{Agreement, ClaimParameters, slice_attribute},
    problem::Kind,
    slice::{Class, Lifecycle, Mode, Provision, Reservation, Slice},
};
use jiff::Timestamp;
use std::{collections::BTreeSet, net::IpAddr};

/// An instant to the second.
pub fn second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Whether its promise can be given on: booked for good and not over.
pub(super) fn booked(slice: &Slice, now: Timestamp) -> bool {
    slice.status.reservation == Reservation::Committed && slice.booked_at(now)
}

/// How it came to its end.
fn ended(slice: &Slice) -> String {
    match (slice.status.lifecycle, slice.status.reservation) {
        (Lifecycle::Terminated, _) => "it was ended by request".to_owned(),
        (_, Reservation::Held | Reservation::TimedOut | Reservation::Aborted) => {
            "it was not committed in time".to_owned()
        }
        _ => format!("it ended {}", second(slice.spec.schedule.end)),
    }
}

/// The slice that a wish means, if something can be had of it now.
pub(super) fn find<'a>(
    slices: &'a Slices,
    wish: &ClaimParameters,
    tenant_of_namespace: Option<&String>,
    now: Timestamp,
) -> Result<&'a Slice, Verdict> {
    let Some(name) = &wish.slice else {
        return Err(Verdict::no(Reason::Waiting, "no slice is asked for"));
    };
    let slices = match slices {
        Slices::Known(slices) => slices,
        Slices::Silent { target, why } => {
            return Err(Verdict::no(
                Reason::ControllerSilent,
                format!(
                    "what slice {name} has left is not known: the domain's controller at {target} \
                     does not answer ({why}): it waits until it does"
                ),
            ));
        }
    };
    let tenant = wish.tenant.as_ref().map(|tenant| tenant.as_str());
    let tenant = tenant.or(tenant_of_namespace.map(String::as_str));
    let named: Vec<&Slice> = slices.iter().filter(|s| s.spec.name == *name).collect();
    let own: Vec<&Slice> = named
        .iter()
        .copied()
        .filter(|slice| tenant.is_none_or(|tenant| slice.spec.tenant.as_str() == tenant))
        .collect();
    let living = |slice: &&Slice| {
        slice.status.lifecycle == Lifecycle::Created
            && matches!(
                slice.status.reservation,
                Reservation::Held | Reservation::Committed
            )
            && slice.booked_at(now)
    };
    let invalid = |why: String| {
        let problem = Problem::new(Kind::Forbidden, "the parameters of the claim are not valid");
        let text = super::judge::words(&problem.at("/parameters/tenant", why));
        Err(Verdict::no(Reason::InvalidParameters, text))
    };
    let waits = |why: String| Err(Verdict::no(Reason::Waiting, why));
    let alive: Vec<&Slice> = own.iter().copied().filter(living).collect();
    let tenants: BTreeSet<&str> = alive.iter().map(|s| s.spec.tenant.as_str()).collect();
    if tenants.len() > 1 {
        let tenants: Vec<&str> = tenants.into_iter().collect();
        return invalid(format!(
            "is missing: tenants {} each have a slice {name}",
            tenants.join(", ")
        ));
    }
    let Some(slice) = alive.first().copied() else {
        if let Some(tenant) = tenant
            && own.is_empty()
            && named.iter().any(living)
        {
            return invalid(format!(
                "slice {name} is another tenant's, and this claim may use those of {tenant}"
            ));
        }
        let last = own.iter().max_by_key(|slice| slice.created_at);
        return waits(match last {
            Some(last) => format!(
                "slice {name} is not booked any more ({}): it waits until it is reserved anew: \
                 dtnctl slice reserve",
                ended(last)
            ),
            None => format!(
                "there is no slice {name}: it waits until it is reserved: dtnctl slice reserve"
            ),
        });
    };
    let schedule = &slice.spec.schedule;
    if slice.status.reservation == Reservation::Held {
        return waits(format!(
            "slice {name} is held and not yet committed: it waits"
        ));
    }
    if now < schedule.start {
        return waits(format!(
            "slice {name} begins {}: it waits until then",
            second(schedule.start)
        ));
    }
    if let Some(until) = wish.until.filter(|until| *until > schedule.end) {
        return waits(format!(
            "slice {name} is booked until {}, wanted is until {}: it waits until it is extended: \
             dtnctl slice extend",
            second(schedule.end),
            second(until)
        ));
    }
    if slice.status.provision == Provision::Released {
        return waits(format!(
            "slice {name} is booked and not provisioned now: it waits until it is"
        ));
    }
    Ok(slice)
}

/// Why a NIC cannot carry this slice: it is no member and cannot become one by itself. Where it
/// can, its node lets it join when the pod is prepared.
pub(super) fn closed(slice: &Slice, nic: &Nic, key: &NicKey) -> Option<String> {
    let spec = &slice.spec;
    let id = HostId::untagged(nic.mac?);
    let mut members = spec.members.iter();
    if spec.open || members.any(|member| member.host.as_ref() == Some(&id)) {
        return None;
    }
    let (NicKey(node, device), name) = (key, &spec.name);
    let ifname = nic.ifname.as_ref().unwrap_or(device);
    let of_two = slice.stitch.is_some() || spec.members.iter().any(|m| m.border_link.is_some());
    let remedy = match (of_two || spec.qos.mode == Mode::Pair, slice_attribute(name)) {
        (true, Some(attribute)) => {
            format!("choose another one by a selector (slices.dtn.appliance/{attribute})")
        }
        (true, None) => "choose another one by a selector".to_owned(),
        (false, _) => {
            format!("dtnctl slice join {name} {node}/{ifname}, or reserve it with --open")
        }
    };
    Some(format!(
        "NIC {ifname} of {node} is no member of slice {name}: it waits until it is: {remedy}"
    ))
}

/// What of a wish this slice can never give.
pub(super) fn unfit(wish: &ClaimParameters, slice: &Slice) -> Option<Problem> {
    let name = &slice.spec.name;
    let mut problem = Problem::new(
        Kind::InvalidRequest,
        "the parameters of the claim are not valid",
    );
    if slice.spec.qos.class == Class::BestEffort && wish.rate.is_some() {
        let why = format!("slice {name} is best effort and promises no rate: leave it out");
        problem = problem.at("/parameters/rate", why);
    }
    let addressing = slice.spec.addressing.as_ref();
    for (n, ip) in wish.addresses.iter().enumerate() {
        let pool = addressing.and_then(|addressing| match ip {
            IpAddr::V4(_) => addressing.ipv4.as_ref(),
            IpAddr::V6(_) => addressing.ipv6.as_ref(),
        });
        let why = match pool {
            Some(pool) if pool.cidr.contains(ip) => continue,
            Some(pool) => format!("{ip} is not in {}, which slice {name} hands out", pool.cidr),
            None => format!("{ip}: slice {name} hands out no addresses of its family"),
        };
        problem = problem.at(format!("/parameters/addresses/{n}"), why);
    }
    if let (Some(mtu), Some(addressing)) = (wish.mtu, addressing)
        && mtu > addressing.mtu
    {
        let why = format!(
            "is {mtu}, and slice {name} carries {} bytes",
            addressing.mtu
        );
        problem = problem.at("/parameters/mtu", why);
    }
    (!problem.errors.is_empty()).then_some(problem)
}

/// What is said when not enough is left.
pub(super) fn too_little(
    wish: &ClaimParameters,
    together: Option<Rate>,
    slice: &Slice,
    place: &Place,
    room: &Room,
    before: Option<(String, Rate)>,
) -> Verdict {
    let name = &slice.spec.name;
    let rate = Rate::from_bps(slice.spec.qos.rate_bps);
    let least = together.or(wish.least_rate).or(wish.rate);
    let mut wanted = match (wish.rate, wish.least_rate) {
        (Some(rate), Some(least)) => format!("{least} to {rate} are wanted"),
        (Some(rate), None) => format!("{rate} are wanted"),
        (None, _) => "something of it is wanted".to_owned(),
    };
    if let Some(together) = together {
        wanted.push_str(&format!(", {together} by all claims of the pod"));
    }
    let on = place
        .1
        .as_ref()
        .map_or(String::new(), |nic| format!(" on {nic}"));
    if let Some(least) = least.filter(|least| *least > rate) {
        return Verdict::no(
            Reason::Waiting,
            format!(
                "slice {name} has {rate} in all, {least} are wanted: it waits until the slice is \
                 reserved with more: dtnctl slice reserve"
            ),
        );
    }
    let until = second(slice.spec.schedule.end);
    let left = Rate::from_bps(room.left);
    let remedy = match before {
        Some((claim, need)) if room.left > room.bps => {
            format!("claim {claim} asked before and waits for {need} of it: it waits for its turn")
        }
        _ => "it waits for a pod that ends, or reserve more: dtnctl slice reserve".to_owned(),
    };
    Verdict::no(
        Reason::Waiting,
        format!("slice {name} has {left} of {rate} left{on} until {until}, {wanted}: {remedy}"),
    )
}

/// What is said of a promise that holds no more, to a pod that is using it.
pub(super) fn over(promise: &Agreement, slice: Option<&Slice>) -> Verdict {
    let name = &promise.slice;
    let what = match slice {
        Some(slice) => format!("slice {name} is over ({})", ended(slice)),
        None => format!("slice {name} is not known to the domain's controller any more"),
    };
    Verdict {
        reason: Reason::SliceOver,
        message: format!(
            "{what}: the pod keeps its interface and sends with best effort; reserve it anew and \
             start the pod anew for a new promise"
        ),
        agreement: Some(promise.clone()),
    }
}
