//! What is wrong with a claim whatever slices there are, and whose turn it is. Pure.

use super::World;
use crate::{
    claim::{Claim, DeviceKey, Wish},
    queue::Turn,
};
use dtn_api::{IfName, Name, Problem, Rate, cluster::ClaimParameters, problem::Kind};
use std::collections::BTreeMap;

/// Longest text of a problem; an event's note has room for 1024 bytes (events.k8s.io/v1).
const LONGEST: usize = 900;

/// Each claim's turn: that of the oldest claim of the same pod.
pub(super) fn turns(claims: &[Claim]) -> Vec<Turn> {
    let own = |claim: &Claim| (claim.created_at, claim.uid.clone());
    let mut of_pod: BTreeMap<&str, Turn> = BTreeMap::new();
    for claim in claims {
        if let Some(pod) = only_pod(claim) {
            let turn = of_pod.entry(pod).or_insert_with(|| own(claim));
            *turn = own(claim).min(turn.clone());
        }
    }
    let of = |claim: &Claim| only_pod(claim).and_then(|pod| of_pod.get(pod).cloned());
    claims
        .iter()
        .map(|claim| of(claim).unwrap_or_else(|| own(claim)))
        .collect()
}

/// The pod that a claim is for; several cannot have one interface, and that is said on the node.
fn only_pod(claim: &Claim) -> Option<&str> {
    match claim.pods.as_slice() {
        [pod] => Some(&pod.uid),
        _ => None,
    }
}

/// Everything that is wrong, by claim and device.
pub(super) fn wrong(world: &World) -> Vec<(usize, DeviceKey, Problem)> {
    let mut found = Vec::new();
    let mut order: Vec<usize> = (0..world.claims.len()).collect();
    order.sort_by_key(|at| {
        let claim = &world.claims[*at];
        (claim.created_at, &claim.uid)
    });
    // who has a name first keeps it
    let mut names: BTreeMap<(&str, &IfName), (usize, &str)> = BTreeMap::new();
    for at in order {
        let claim = &world.claims[at];
        let holder = only_pod(claim).unwrap_or(&claim.uid);
        for wish in &claim.wishes {
            let problem = match &wish.parameters {
                Err(problem) => Some(problem.clone()),
                Ok(parameters) => {
                    let name = (holder, &parameters.interface);
                    let taken = names.get(&name).map(|(other, request)| {
                        let whose = world.claims[*other].full_name();
                        format!(
                            "the pod has {} by request {request} of claim {whose} already: name \
                             another, by a config for each request",
                            parameters.interface
                        )
                    });
                    names.entry(name).or_insert((at, &wish.request));
                    judged(world, claim, wish, parameters, taken)
                }
            };
            if let Some(problem) = problem {
                found.push((at, wish.key.clone(), problem));
            }
        }
    }
    found
}

fn judged(
    world: &World,
    claim: &Claim,
    wish: &Wish,
    parameters: &ClaimParameters,
    taken: Option<String>,
) -> Option<Problem> {
    let mut problem = Problem::new(
        Kind::InvalidRequest,
        "the parameters of the claim are not valid",
    );
    if let Some(why) = taken {
        problem = problem.at("/parameters/interface", why);
    }
    let least = parameters.least_rate.or(parameters.rate);
    if let (Some(rate), Some(capacity)) = (parameters.rate, wish.capacity_bps.map(Rate::from_bps))
        && rate > capacity
    {
        let why = format!(
            "is {rate}, and request {} has {capacity} of its NIC (capacity.requests.bandwidth): \
             ask the scheduler for as much",
            wish.request
        );
        problem = problem.at("/parameters/rate", why);
    }
    let speed = world
        .nics
        .get(&wish.key.nic())
        .and_then(|nic| nic.speed_bps)
        .map(Rate::from_bps);
    if let (Some(least), Some(speed)) = (least, speed)
        && least > speed
    {
        let field = match parameters.least_rate {
            Some(_) => "/parameters/leastRate",
            None => "/parameters/rate",
        };
        let nic = wish.key.nic();
        problem = problem.at(
            field,
            format!("is {least}, and NIC {nic} runs at {speed}: choose a faster one by a selector"),
        );
    }
    if let (Some(asked), Some(own)) = (&parameters.tenant, world.tenants.get(&claim.namespace))
        && asked.as_str() != own
    {
        let why = format!(
            "is {asked}, and namespace {} may use slices of tenant {own} alone",
            claim.namespace
        );
        problem = problem.at("/parameters/tenant", why);
    }
    if let Some(own) = world.tenants.get(&claim.namespace)
        && own.parse::<Name>().is_err()
    {
        let why = format!(
            "namespace {} is labelled {}={own:?}, which is no tenant's name",
            claim.namespace,
            super::TENANT_LABEL
        );
        problem = problem.at("/parameters/tenant", why);
    }
    (!problem.errors.is_empty()).then_some(problem)
}

/// All of a problem on one line, each with its field.
pub(super) fn words(problem: &Problem) -> String {
    let mut text = problem.detail.clone();
    for (n, fault) in problem.errors.iter().enumerate() {
        text.push_str(if n == 0 { ": " } else { "; " });
        if !fault.pointer.is_empty() {
            text.push_str(&fault.pointer);
            text.push(' ');
        }
        text.push_str(&fault.detail);
    }
    if text.len() > LONGEST {
        let end = (0..=LONGEST)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
