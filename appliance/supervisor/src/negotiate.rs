//! Negotiation: how a wish becomes a slice, or a number that would fit. Pure: [`step`] takes a case,
//! what happened and the time, and gives the case as it is then and what is to be done.
//!
//! ```text
//! choosing NIC ─▶ asking ─▶ holding ─▶ committing ─▶ reading back ─▶ agreed ─▶ ended
//!                  │  ▲         └──────────┴──────▶ giving back ─▶ failed
//!                  │  └─ waiting (fits later)          ▲ deadline, refusal, withdrawal
//!                  └──▶ refused (with what would fit)
//! agreed ─▶ choosing NIC: the slice, the NIC or its speed was lost before the end
//! ```
//!
//! The driver writes the case to disk before it carries an action out, and every action can be
//! repeated: what was being done when the process died is done again by [`resume`].

mod bodies;
mod step;
#[cfg(test)]
mod tests;

pub(crate) use bodies::query;
pub use bodies::{Wanted, wanted};
pub use step::{resume, step};

use dtn_api::{
    HostId, IfName, Rate,
    local::{Ask, Negotiation, NegotiationState, Offer},
    nic::NicClass,
    slice::{Availability, Schedule, Slice},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Version of the file of a case; a newer one is refused.
pub const CASE_VERSION: u32 = 1;
/// From the first question to the agreement. A controller and its peer have 10 s each for a call.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long the controllers hold: longer than [`DEADLINE`], so that a commit in time is honoured.
pub const HOLD_SECONDS: u32 = 90;
/// How often a waiting wish is asked anew, as someone may give back early.
pub const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Where a case stands, in steps that can each be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A NIC of this host is being looked for.
    ChoosingNic,
    /// The controller is being asked what can be had.
    Asking,
    /// It fits later.
    Waiting,
    /// The plan is being held.
    Holding,
    /// What is held is being committed.
    Committing,
    /// What was committed is being read back.
    ReadingBack,
    /// It stands.
    Agreed,
    /// What was held or committed is being given back.
    GivingBack,
    /// It does not fit.
    Refused,
    /// It went wrong.
    Failed,
    /// It is over.
    Ended,
}

impl Step {
    /// Whether nothing will happen any more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Refused | Self::Failed | Self::Ended)
    }
    /// Whether whoever asked can be answered.
    pub const fn is_settled(self) -> bool {
        self.is_final() || matches!(self, Self::Agreed | Self::Waiting)
    }
    /// As the contract says it.
    pub const fn state(self) -> NegotiationState {
        match self {
            Self::ChoosingNic | Self::Asking => NegotiationState::Asking,
            Self::Waiting => NegotiationState::Waiting,
            Self::Holding | Self::GivingBack => NegotiationState::Holding,
            Self::Committing | Self::ReadingBack => NegotiationState::Committing,
            Self::Agreed => NegotiationState::Agreed,
            Self::Refused => NegotiationState::Refused,
            Self::Failed => NegotiationState::Failed,
            Self::Ended => NegotiationState::Ended,
        }
    }
}

/// The NIC that a slice is asked for, and what it admits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicLimit {
    /// Its name.
    pub name: IfName,
    /// Its name in the VDN.
    pub host: HostId,
    /// What it carries.
    pub speed: Rate,
    /// The other end, when that is within the domain: a gateway's NIC where a gateway is asked for.
    #[serde(default)]
    pub far: Option<HostId>,
}

/// What is to be held: all of it is decided before the first attempt, so that a repeated attempt
/// is the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Idempotency key.
    pub key: String,
    /// Rate.
    pub rate: Rate,
    /// Window.
    pub schedule: Schedule,
}

/// A negotiation with all that its next step needs; one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// [`CASE_VERSION`].
    pub version: u32,
    /// Which.
    pub id: Uuid,
    /// What was asked.
    pub ask: Ask,
    /// Where it stands.
    pub step: Step,
    /// Counts renewed attempts; part of the idempotency key.
    pub round: u32,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// First instant after what was asked for: an asking anew is for what is left until then.
    pub end: Timestamp,
    /// When the present round is given up.
    pub deadline: Timestamp,
    /// Failures in a row of the present step.
    pub failures: u32,
    /// The NIC.
    pub nic: Option<NicLimit>,
    /// What can be had now.
    pub offer: Option<Offer>,
    /// What could be had later.
    pub later: Option<Offer>,
    /// What is being held.
    pub plan: Option<Plan>,
    /// The slice.
    pub slice_id: Option<Uuid>,
    /// The stitch.
    pub stitch_id: Option<Uuid>,
    /// Where it goes once all is given back.
    pub after: Option<Step>,
    /// It stood once: when it is lost, it is looked for until its window ends.
    pub stood: bool,
    /// Why it stands so, in words.
    pub reason: String,
    /// Why it does not go on: it could not be written down. Only what is shown has it.
    #[serde(skip)]
    pub unkept: Option<String>,
}

impl Case {
    /// A new case and its first actions.
    pub fn open(id: Uuid, ask: Ask, now: Timestamp) -> (Self, Vec<Action>) {
        let start = ask.start.unwrap_or(now).max(now);
        let case = Self {
            version: CASE_VERSION,
            id,
            end: later(start, ask.duration.duration()),
            ask,
            step: Step::ChoosingNic,
            round: 0,
            asked_at: now,
            deadline: later(now, DEADLINE),
            failures: 0,
            nic: None,
            offer: None,
            later: None,
            plan: None,
            slice_id: None,
            stitch_id: None,
            after: None,
            stood: false,
            reason: String::new(),
            unkept: None,
        };
        (case, vec![Action::ChooseNic])
    }

    /// As the contract shows it.
    pub fn shown(&self) -> Negotiation {
        Negotiation {
            id: self.id,
            ask: self.ask.clone(),
            state: self.step.state(),
            offer: self.offer.clone(),
            later: self.later.clone(),
            slice_id: self.slice_id,
            stitch_id: self.stitch_id,
            reason: self.unkept.as_ref().unwrap_or(&self.reason).clone(),
        }
    }

    /// Until when it may wait for a window.
    pub fn patience(&self) -> Timestamp {
        let waits = later(self.asked_at, self.ask.wait.duration());
        if self.stood {
            waits.max(self.end)
        } else {
            waits
        }
    }
}

/// Why something did not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub why: String,
    /// Whether the same can succeed later.
    pub retryable: bool,
    /// It is a matter of bandwidth: someone was faster.
    pub bandwidth: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A NIC was found.
    Nic(NicLimit),
    /// None was; each reason in words.
    NoNic(String),
    /// The controller said what can be had.
    Available(Availability),
    /// It is held.
    Held {
        /// The slice of this domain.
        slice_id: Uuid,
        /// The stitch, when it leaves the domain.
        stitch_id: Option<Uuid>,
    },
    /// It is committed on every side.
    Committed,
    /// It was read back.
    Read(Box<Slice>),
    /// It is not there any more.
    Gone(String),
    /// What was held or committed is given back, everywhere.
    GivenBack,
    /// The present action failed.
    Failed(Trouble),
    /// The NIC is gone, must not be taken, or lost its carrier for good.
    NicLost(String),
    /// The NIC's speed is another now.
    Speed(Rate),
    /// Whoever asked does not want it any more.
    Withdrawn,
    /// Time has passed.
    Tick,
}

/// What is to be done. Each can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Find a free NIC of the class.
    ChooseNic,
    /// Ask what can be had; `rate` is what a later window is looked for.
    Ask {
        /// Window.
        schedule: Schedule,
        /// Rate that a first fit is looked for.
        rate: Option<Rate>,
    },
    /// Hold the plan, in both domains where there are two.
    Hold,
    /// Commit what is held.
    Commit,
    /// Read back what was committed.
    ReadBack,
    /// Give back what is held or committed.
    GiveBack,
    /// Come again at this time.
    Wake(Timestamp),
}

/// What class of NIC admits to a slice: a guaranteed one leaves 5 % of a link unbooked.
pub(crate) fn nic_admits(class: dtn_api::slice::Class, speed: Rate) -> Rate {
    match class {
        dtn_api::slice::Class::Dedicated => speed,
        dtn_api::slice::Class::Guaranteed => speed.fraction(95, 100),
        dtn_api::slice::Class::BestEffort => speed,
    }
}

/// Chooses a NIC for an ask: the wanted one, or the fastest free one of the class. Or why none.
pub fn choose_nic(ask: &Ask, nics: &[dtn_api::nic::Nic]) -> Result<NicLimit, String> {
    let mut reasons = Vec::new();
    let mut found: Option<NicLimit> = None;
    for nic in nics {
        if ask.nic.as_ref().is_some_and(|wanted| *wanted != nic.name) {
            continue;
        }
        match usable(ask.nic_class, nic) {
            Ok(limit) => {
                if found.as_ref().is_none_or(|best| best.speed < limit.speed) {
                    found = Some(limit);
                }
            }
            Err(why) => reasons.push(format!("{}: {why}", nic.name)),
        }
    }
    found.ok_or_else(|| match (&ask.nic, reasons.is_empty()) {
        (Some(nic), true) => format!("this host has no NIC {nic}: dtnctl nics lists them"),
        (None, true) => format!(
            "no NIC is given as {}: add a [[nic]] to the configuration",
            ask.nic_class
        ),
        _ => format!(
            "no {} NIC can be had: {}",
            ask.nic_class,
            reasons.join("; ")
        ),
    })
}

/// Whether a NIC can carry a slice. That a pod holds it does not matter: a slice is asked for
/// between NICs, and pods join it later.
fn usable(class: NicClass, nic: &dtn_api::nic::Nic) -> Result<NicLimit, String> {
    if nic.class != Some(class) {
        return Err(match nic.class {
            Some(other) => format!("is given as {other}"),
            None => "is not given to the appliance".into(),
        });
    }
    if let Some(reason) = nic.guarded.first() {
        return Err(reason.clone());
    }
    if !nic.carrier {
        let why = if nic.up {
            "has no carrier"
        } else {
            "is switched off"
        };
        return Err(why.into());
    }
    let speed = nic
        .speed
        .ok_or("tells no speed: write speed in its [[nic]]")?;
    Ok(NicLimit {
        name: nic.name.clone(),
        host: HostId::untagged(nic.mac),
        speed,
        far: None,
    })
}

/// `at` plus a span; the end of the calendar when it goes beyond.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
