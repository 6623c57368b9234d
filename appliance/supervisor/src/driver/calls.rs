//! One action of a negotiation, as calls to the controller and looks at the host.

use crate::{
    Host,
    declare::declare,
    negotiate::{Action, Case, Event, Trouble, Wanted, choose_nic, query, wanted},
};
use dtn_api::{
    HostId, Problem,
    host::HostKind,
    problem::Kind,
    slice::{Lifecycle, Reservation, Slice},
    stitch::{Stitch, StitchState},
};
use jiff::Timestamp;
use uuid::Uuid;

/// Carries an action out and says what came of it.
pub(super) async fn carry_out(host: &Host, case: &Case, action: &Action) -> Event {
    let outcome = match action {
        Action::ChooseNic => find_nic(host, case).await,
        Action::Ask { schedule, rate } => match query(case, *schedule, *rate) {
            Some(query) => host.uplink.availability(&query).await.map(Event::Available),
            None => Err(undecided()),
        },
        Action::Hold => hold(host, case).await,
        Action::Commit => commit(host, case).await,
        Action::ReadBack => read_back(host, case).await,
        Action::GiveBack => give_back(host, case).await,
        Action::Wake(_) => Ok(Event::Tick),
    };
    outcome.unwrap_or_else(|problem| Event::Failed(trouble(&problem)))
}

fn trouble(problem: &Problem) -> Trouble {
    Trouble {
        why: problem.to_string(),
        retryable: problem.retryable,
        bandwidth: problem.is(Kind::InsufficientBandwidth),
    }
}
fn undecided() -> Problem {
    Problem::new(Kind::Internal, "the case has no NIC or plan for this step")
}

async fn find_nic(host: &Host, case: &Case) -> Result<Event, Problem> {
    let mut nics = host.inventory.nics().await?;
    let far = far_end(host, case).await?;
    // the gateway's own NIC is the other end, and no NIC is both
    if case.ask.nic.is_none() {
        nics.retain(|nic| far.as_ref() != Some(&HostId::untagged(nic.mac)));
    }
    let mut limit = match choose_nic(&case.ask, &nics) {
        Ok(limit) => limit,
        Err(why) => return Ok(Event::NoNic(why)),
    };
    if let (Some(gateway), true) = (&case.ask.gateway, far.as_ref() == Some(&limit.host)) {
        return Ok(Event::NoNic(format!(
            "{} is the NIC of the gateway {gateway} itself: name another one",
            limit.name
        )));
    }
    limit.far = far;
    // the controller has to know the NIC before a slice can be asked for it
    if let Some(nic) = nics
        .iter()
        .find(|nic| HostId::untagged(nic.mac) == limit.host)
    {
        declare(host, nic).await?;
    }
    Ok(Event::Nic(limit))
}

/// The other end, when it is asked for within this domain: a gateway's NIC, or another host's.
async fn far_end(host: &Host, case: &Case) -> Result<Option<HostId>, Problem> {
    if let Some(name) = &case.ask.gateway {
        return Ok(Some(host.uplink.gateway(name).await?.spec.host));
    }
    let identity = host
        .uplink
        .identity()
        .ok_or_else(crate::uplink::not_joined)?;
    let Some(remote) = case.ask.remote.as_ref() else {
        return Ok(None);
    };
    if remote.domain != identity.domain {
        return Ok(None);
    }
    let hosts = host.uplink.hosts().await?;
    let nics = hosts.iter().filter(|h| h.spec.kind == HostKind::Nic);
    let named = nics.map(|h| (format!("{}/{}", h.spec.node, h.spec.nic), &h.id));
    let others = named.filter(|(name, _)| !name.starts_with(&format!("{}/", identity.host)));
    let found: Vec<_> = others
        .filter(|(name, _)| remote.endpoint.as_ref().is_none_or(|wanted| wanted == name))
        .collect();
    match &found[..] {
        [(_, id)] => Ok(Some((*id).clone())),
        [] => Err(Problem::new(
            Kind::NotFound,
            format!(
                "no other host of {} has declared the NIC {}",
                identity.domain,
                remote.endpoint.as_deref().unwrap_or("of the other end")
            ),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            Err(Problem::new(
                Kind::InvalidRequest,
                format!(
                    "{} has several other ends, name one of {}",
                    identity.domain,
                    names.join(", ")
                ),
            ))
        }
    }
}

async fn hold(host: &Host, case: &Case) -> Result<Event, Problem> {
    let (Some(wanted), Some(plan)) = (wanted(case), case.plan.as_ref()) else {
        return Err(undecided());
    };
    Ok(match wanted {
        Wanted::Slice(spec) => {
            let slice = host.uplink.post_slice(&plan.key, &spec).await?;
            Event::Held {
                slice_id: slice.id,
                stitch_id: None,
            }
        }
        Wanted::Stitch(spec) => {
            let stitch = host.uplink.post_stitch(&plan.key, &spec).await?;
            match stitch.state {
                StitchState::Rejected => {
                    return Err(Problem::new(
                        Kind::StateConflict,
                        format!("the domain {} refused: {}", stitch.peer, why(&stitch)),
                    ));
                }
                // our end alone; enough to give it back, not to commit it
                StitchState::Proposed if case.after.is_none() => {
                    return Err(Problem::new(
                        Kind::RequestInProgress,
                        format!("the domain {} has not answered yet", stitch.peer),
                    ));
                }
                _ => {}
            }
            Event::Held {
                slice_id: stitch.slice_id,
                stitch_id: Some(stitch.id),
            }
        }
    })
}

fn why(stitch: &Stitch) -> &str {
    stitch.reason.as_deref().unwrap_or("no reason was given")
}

async fn commit(host: &Host, case: &Case) -> Result<Event, Problem> {
    if let Some(id) = case.stitch_id {
        let stitch = match host.uplink.stitch(id).await? {
            done if done.state == StitchState::Committed => done,
            _ => host.uplink.stitch_action(id, "commit").await?,
        };
        return match stitch.state {
            StitchState::Committed => Ok(Event::Committed),
            StitchState::Committing | StitchState::Held | StitchState::Proposed => {
                Err(Problem::new(
                    Kind::RequestInProgress,
                    format!(
                        "the domain {} has not confirmed the commit yet",
                        stitch.peer
                    ),
                ))
            }
            state => Err(Problem::new(
                Kind::HoldExpired,
                format!("the stitch is {state:?}: {}", why(&stitch)),
            )),
        };
    }
    let id = case.slice_id.ok_or_else(undecided)?;
    let committed = |slice: &Slice| slice.status.reservation == Reservation::Committed;
    if !committed(&host.uplink.slice(id).await?) {
        let slice = host.uplink.slice_action(id, "commit").await?;
        if !committed(&slice) {
            return Err(Problem::new(
                Kind::HoldExpired,
                format!("the slice is {:?}", slice.status.reservation),
            ));
        }
    }
    Ok(Event::Committed)
}

async fn read_back(host: &Host, case: &Case) -> Result<Event, Problem> {
    let id = case.slice_id.ok_or_else(undecided)?;
    let slice = match host.uplink.slice(id).await {
        Ok(slice) => slice,
        Err(problem) if problem.is(Kind::NotFound) => {
            return Ok(Event::Gone("the controller does not know it".into()));
        }
        Err(problem) => return Err(problem),
    };
    // a slice that ended by its own clock or by request is told by the slice itself
    if let Some(id) = case.stitch_id
        && slice.status.lifecycle == Lifecycle::Created
    {
        let stitch = host.uplink.stitch(id).await?;
        match stitch.state {
            StitchState::Committed => {}
            StitchState::Terminating | StitchState::Terminated => {
                return Ok(Event::Gone(format!(
                    "the stitch with {} is being ended: {}",
                    stitch.peer,
                    why(&stitch)
                )));
            }
            state => {
                return Err(Problem::new(
                    Kind::RequestInProgress,
                    format!("the stitch with {} is {state:?}", stitch.peer),
                ));
            }
        }
    }
    Ok(Event::Read(Box::new(slice)))
}

async fn give_back(host: &Host, case: &Case) -> Result<Event, Problem> {
    if let Some(id) = case.stitch_id {
        end_stitch(host, id).await?;
    } else if let Some(id) = case.slice_id {
        end_slice(host, id).await?;
    }
    Ok(Event::GivenBack)
}

/// Ends a stitch wherever it stands. Success when it is over.
pub(crate) async fn end_stitch(host: &Host, id: Uuid) -> Result<(), Problem> {
    let stitch = match host.uplink.stitch(id).await {
        Err(problem) if problem.is(Kind::NotFound) => return Ok(()),
        other => other?,
    };
    let action = match stitch.state {
        StitchState::Proposed | StitchState::Held => "abort",
        StitchState::Committing | StitchState::Committed | StitchState::Terminating => "terminate",
        StitchState::Terminated
        | StitchState::Rejected
        | StitchState::TimedOut
        | StitchState::Aborted => return Ok(()),
    };
    host.uplink.stitch_action(id, action).await.map(|_| ())
}

/// Ends a slice wherever it stands. Success when it is over.
pub(crate) async fn end_slice(host: &Host, id: Uuid) -> Result<(), Problem> {
    let slice = match host.uplink.slice(id).await {
        Err(problem) if problem.is(Kind::NotFound) => return Ok(()),
        other => other?,
    };
    if slice.status.lifecycle != Lifecycle::Created {
        return Ok(());
    }
    let action = match slice.status.reservation {
        Reservation::Held if slice.booked_at(Timestamp::now()) => "abort",
        Reservation::Committed => "terminate",
        Reservation::Held | Reservation::TimedOut | Reservation::Aborted => return Ok(()),
    };
    host.uplink.slice_action(id, action).await.map(|_| ())
}
