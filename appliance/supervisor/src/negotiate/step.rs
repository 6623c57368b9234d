//! The rules of a negotiation.

use super::{ASK_AGAIN, Action, Case, DEADLINE, Event, Plan, Step, Trouble, later, nic_admits};
use dtn_api::{
    Rate,
    local::Offer,
    slice::{Availability, Class, Lifecycle, Reservation, Schedule, Slice},
};
use jiff::Timestamp;
use std::time::Duration;

/// What comes of a case when this happens now. An event that does not fit to the step (a late
/// answer) changes nothing.
pub fn step(mut case: Case, event: Event, now: Timestamp) -> (Case, Vec<Action>) {
    let actions = apply(&mut case, event, now);
    (case, actions)
}

/// What is to be done for a case that was found on disk: its present step once more.
pub fn resume(mut case: Case, now: Timestamp) -> (Case, Vec<Action>) {
    case.failures = 0;
    let mut actions = overdue(&mut case, now);
    if actions.is_empty() {
        actions = match case.step {
            Step::Waiting => vec![Action::Wake(now)],
            _ => again(&case),
        };
    }
    (case, actions)
}

fn apply(case: &mut Case, event: Event, now: Timestamp) -> Vec<Action> {
    if case.step.is_final() {
        return Vec::new();
    }
    match event {
        Event::Withdrawn => withdraw(case),
        Event::Tick => tick(case, now),
        Event::Failed(trouble) => failed(case, &trouble, now),
        Event::NicLost(why) => nic_lost(case, why, now),
        Event::Speed(speed) => new_speed(case, speed, now),
        // asking anew begins with the NIC
        Event::Nic(nic) if matches!(case.step, Step::ChoosingNic | Step::Asking) => {
            case.nic = Some(nic);
            go(case, Step::Asking, now)
        }
        Event::NoNic(why) if matches!(case.step, Step::ChoosingNic | Step::Asking) => {
            case.reason = why;
            let patience = case.patience();
            if now < patience && !case.ask.dry_run {
                return wait(case, later(now, ASK_AGAIN).min(patience));
            }
            enter(case, Step::Refused)
        }
        Event::Available(found) if case.step == Step::Asking => decide(case, &found, now),
        Event::Held {
            slice_id,
            stitch_id,
        } if case.step == Step::Holding => {
            (case.slice_id, case.stitch_id) = (Some(slice_id), stitch_id);
            if case.after.is_some() {
                return enter(case, Step::GivingBack);
            }
            enter(case, Step::Committing)
        }
        Event::Committed if case.step == Step::Committing => enter(case, Step::ReadingBack),
        Event::Read(slice) => read(case, &slice, now),
        Event::Gone(why) => gone(case, why, now),
        Event::GivenBack if case.step == Step::GivingBack => {
            (case.slice_id, case.stitch_id, case.plan) = (None, None, None);
            match case.after.take().unwrap_or(Step::Failed) {
                Step::ChoosingNic => start_over(case, now),
                after => enter(case, after),
            }
        }
        _ => Vec::new(),
    }
}

/// Enters a step and says what it needs done.
fn enter(case: &mut Case, step: Step) -> Vec<Action> {
    case.step = step;
    case.failures = 0;
    again(case)
}

fn go(case: &mut Case, step: Step, now: Timestamp) -> Vec<Action> {
    case.step = step;
    case.failures = 0;
    if step == Step::Asking {
        let (schedule, rate) = (window(case, now), sought(case));
        return vec![Action::Ask { schedule, rate }];
    }
    again(case)
}

/// The action of the present step. Asking anew begins with the NIC, which may have changed since.
fn again(case: &Case) -> Vec<Action> {
    match case.step {
        Step::ChoosingNic | Step::Asking => vec![Action::ChooseNic],
        // whoever waits was told when to come again
        Step::Waiting => Vec::new(),
        Step::Holding => vec![Action::Hold],
        Step::Committing => vec![Action::Commit],
        Step::ReadingBack | Step::Agreed => vec![Action::ReadBack],
        Step::GivingBack => vec![Action::GiveBack],
        Step::Refused | Step::Failed | Step::Ended => Vec::new(),
    }
}

/// The window that is asked for now: what is left of the wish.
fn window(case: &Case, now: Timestamp) -> Schedule {
    let start = case.ask.start.unwrap_or(now).max(now);
    let whole = later(start, case.ask.duration.duration());
    // a first round is asked for in full, however long it was waited for
    let end = if case.round == 0 { whole } else { case.end };
    Schedule { start, end }
}

/// The rate that a later window must have.
fn sought(case: &Case) -> Option<Rate> {
    case.ask.min_rate.or(case.ask.rate)
}

/// The controller has said what can be had.
fn decide(case: &mut Case, found: &Availability, now: Timestamp) -> Vec<Action> {
    let Some(nic) = case.nic.clone() else {
        return go(case, Step::ChoosingNic, now);
    };
    let schedule = window(case, now);
    let admits = nic_admits(case.ask.class, nic.speed);
    let there = Rate::from_bps(found.max_rate_bps);
    let (most, limited_by) = if admits < there {
        (admits, format!("host:{}", nic.name))
    } else {
        (there, found.limited_by.clone())
    };
    case.offer = Some(Offer {
        rate: most,
        start: schedule.start,
        end: schedule.end,
        limited_by: limited_by.clone(),
    });
    let fits_later = found.first_fit.filter(|fit| fit.start > now);
    case.later = fits_later
        .zip(sought(case))
        .filter(|(_, rate)| *rate <= admits)
        .map(|(fit, rate)| Offer {
            rate,
            start: fit.start,
            end: fit.end,
            limited_by: String::new(),
        });
    match take(case, most) {
        Ok((rate, words)) => {
            case.later = None;
            case.reason = words;
            if case.ask.dry_run {
                case.reason.push_str("; nothing was reserved (dry run)");
                return enter(case, Step::Ended);
            }
            case.end = schedule.end;
            case.plan = Some(Plan {
                key: format!("{}-{}", case.id, case.round),
                rate,
                schedule,
            });
            enter(case, Step::Holding)
        }
        Err(words) => {
            case.reason = format!("{words}, limited by {limited_by}");
            let patience = case.patience();
            match &case.later {
                Some(fit) if !case.ask.dry_run && fit.start <= patience => {
                    let at = fit.start.min(later(now, ASK_AGAIN));
                    wait(case, at)
                }
                // a NIC that is too slow does not become faster by waiting
                None if !case.ask.dry_run
                    && now < patience
                    && sought(case).is_none_or(|rate| rate <= admits) =>
                {
                    wait(case, later(now, ASK_AGAIN).min(patience))
                }
                _ => enter(case, Step::Refused),
            }
        }
    }
}

/// What is taken of the most that can be had, with words; or why nothing is.
fn take(case: &Case, most: Rate) -> Result<(Rate, String), String> {
    if case.ask.class == Class::BestEffort {
        return Ok((
            case.ask.rate.unwrap_or(Rate::from_bps(0)),
            "best effort: no rate is promised".into(),
        ));
    }
    let nothing = Rate::from_bps(0);
    match (case.ask.rate, case.ask.min_rate) {
        (Some(rate), _) if rate <= most && rate > nothing => Ok((rate, format!("{rate} fit"))),
        (Some(rate), Some(least)) if least <= most && most > nothing => Ok((
            most,
            format!("{rate} do not fit, the rest of {most} was taken"),
        )),
        (None, least) if most > nothing && least.is_none_or(|least| least <= most) => {
            Ok((most, format!("{most} is the most that can be had")))
        }
        (Some(rate), least) => {
            let least = least.map(|least| format!(" (at least {least})"));
            Err(format!(
                "{rate}{} do not fit: {most} would fit",
                least.unwrap_or_default()
            ))
        }
        (None, least) => Err(match least {
            Some(least) => format!("{least} do not fit: {most} would fit"),
            None => "nothing is left".into(),
        }),
    }
}

fn wait(case: &mut Case, until: Timestamp) -> Vec<Action> {
    case.step = Step::Waiting;
    case.failures = 0;
    vec![Action::Wake(until)]
}

fn tick(case: &mut Case, now: Timestamp) -> Vec<Action> {
    let actions = overdue(case, now);
    if !actions.is_empty() || case.step.is_final() {
        return actions;
    }
    match case.step {
        // asking again: a new deadline, the same wish
        Step::Waiting => {
            case.deadline = later(now, DEADLINE);
            case.step = Step::ChoosingNic;
            vec![Action::ChooseNic]
        }
        Step::Agreed => vec![Action::ReadBack],
        // nothing is being done for it just now: a retry that was put off
        _ => again(case),
    }
}

/// What the clock alone decides.
fn overdue(case: &mut Case, now: Timestamp) -> Vec<Action> {
    if case.step == Step::Agreed && now >= case.end {
        case.reason = format!("its window ended at {}", case.end);
        return enter(case, Step::Ended);
    }
    if case.step == Step::Waiting && now > case.patience() {
        case.reason = format!(
            "no window was found within {}: {}",
            case.ask.wait, case.reason
        );
        return enter(case, Step::Refused);
    }
    if now < case.deadline {
        return Vec::new();
    }
    let late = |case: &Case| {
        format!(
            "not agreed by {}: {}",
            case.deadline,
            if case.reason.is_empty() {
                "no answer"
            } else {
                &case.reason
            }
        )
    };
    match case.step {
        Step::ChoosingNic | Step::Asking => {
            case.reason = late(case);
            enter(case, Step::Failed)
        }
        // whether something is held is not known: the same request tells, and then it is given back
        Step::Holding if case.after.is_none() => {
            case.reason = late(case);
            case.after = Some(Step::Failed);
            enter(case, Step::Holding)
        }
        // a commit may have been carried out, with its answer lost: giving back is right for both
        Step::Committing => {
            case.reason = late(case);
            case.after = Some(Step::Failed);
            enter(case, Step::GivingBack)
        }
        _ => Vec::new(),
    }
}

/// Puts the present action off, or gives up.
fn failed(case: &mut Case, trouble: &Trouble, now: Timestamp) -> Vec<Action> {
    case.failures = case.failures.saturating_add(1);
    // what was agreed or is being given back is never given up for want of an answer
    let endless = matches!(
        case.step,
        Step::ReadingBack | Step::Agreed | Step::GivingBack
    );
    if case.step == Step::Holding && !trouble.retryable {
        return match case.after {
            // nothing was held after all
            Some(after) => {
                case.after = None;
                case.plan = None;
                match after {
                    Step::ChoosingNic => start_over(case, now),
                    after => enter(case, after),
                }
            }
            None if trouble.bandwidth && now < case.deadline => {
                case.reason.clone_from(&trouble.why);
                next_round(case);
                enter(case, Step::ChoosingNic)
            }
            None => {
                case.reason.clone_from(&trouble.why);
                enter(case, Step::Failed)
            }
        };
    }
    if !trouble.retryable && !endless {
        case.reason.clone_from(&trouble.why);
        if case.step == Step::Committing {
            case.after = Some(Step::Failed);
            return enter(case, Step::GivingBack);
        }
        return enter(case, Step::Failed);
    }
    if case.step != Step::Agreed && case.after.is_none() {
        case.reason.clone_from(&trouble.why);
    }
    let actions = overdue(case, now);
    if !actions.is_empty() || case.step.is_final() {
        return actions;
    }
    vec![Action::Wake(later(now, backoff(case.failures)))]
}

/// 1, 2, 4, 8, then every 15 s.
fn backoff(failures: u32) -> Duration {
    let seconds = 1_u64 << failures.saturating_sub(1).min(4);
    Duration::from_secs(seconds.min(15))
}

fn withdraw(case: &mut Case) -> Vec<Action> {
    case.reason = "ended by request".into();
    match case.step {
        Step::ChoosingNic | Step::Asking | Step::Waiting => enter(case, Step::Ended),
        // whether something is held is not known: the same request tells, and then it is given back
        Step::Holding => {
            case.after = Some(Step::Ended);
            again(case)
        }
        _ => {
            case.after = Some(Step::Ended);
            enter(case, Step::GivingBack)
        }
    }
}

/// The slice as the controller has it.
fn read(case: &mut Case, slice: &Slice, now: Timestamp) -> Vec<Action> {
    if !matches!(case.step, Step::ReadingBack | Step::Agreed) {
        return Vec::new();
    }
    case.failures = 0;
    match slice.status.lifecycle {
        Lifecycle::PassedEndTime => {
            case.reason = format!("its window ended at {}", slice.spec.schedule.end);
            return enter(case, Step::Ended);
        }
        Lifecycle::Terminated => {
            case.reason = "ended by request at the controller".into();
            return enter(case, Step::Ended);
        }
        Lifecycle::Created => {}
    }
    if slice.status.reservation != Reservation::Committed {
        return gone(
            case,
            format!("the controller has it as {:?}", slice.status.reservation),
            now,
        );
    }
    // the end as it is now: it may have been extended
    case.end = slice.spec.schedule.end;
    case.stood = true;
    case.step = Step::Agreed;
    Vec::new()
}

/// The slice is not there any more, though it should be.
fn gone(case: &mut Case, why: String, now: Timestamp) -> Vec<Action> {
    if !matches!(case.step, Step::ReadingBack | Step::Agreed) {
        return Vec::new();
    }
    if now >= case.end {
        case.reason = format!("its window ended at {}", case.end);
        return enter(case, Step::Ended);
    }
    case.reason = format!("the slice was lost ({why}) and is asked for again");
    case.after = Some(Step::ChoosingNic);
    enter(case, Step::GivingBack)
}

fn nic_lost(case: &mut Case, why: String, now: Timestamp) -> Vec<Action> {
    if case.step != Step::Agreed || now >= case.end {
        return Vec::new();
    }
    case.reason = format!("its NIC was lost ({why}) and it is asked for again");
    case.after = Some(Step::ChoosingNic);
    enter(case, Step::GivingBack)
}

fn new_speed(case: &mut Case, speed: Rate, now: Timestamp) -> Vec<Action> {
    let Some(nic) = case.nic.as_mut() else {
        return Vec::new();
    };
    nic.speed = speed;
    let name = nic.name.clone();
    let admits = nic_admits(case.ask.class, speed);
    let fits = case.plan.as_ref().is_none_or(|plan| plan.rate <= admits);
    if case.step != Step::Agreed || now >= case.end || fits {
        return Vec::new();
    }
    case.reason = format!("{name} runs at {speed} now, which admits {admits}: asked for again",);
    case.after = Some(Step::ChoosingNic);
    enter(case, Step::GivingBack)
}

fn next_round(case: &mut Case) {
    case.round += 1;
    (case.plan, case.slice_id, case.stitch_id) = (None, None, None);
}

fn start_over(case: &mut Case, now: Timestamp) -> Vec<Action> {
    if now >= case.end {
        return enter(case, Step::Ended);
    }
    next_round(case);
    case.deadline = later(now, DEADLINE);
    enter(case, Step::ChoosingNic)
}
