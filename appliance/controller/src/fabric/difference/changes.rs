//! What is to be done at a switch, in the order of its steps.

use super::super::Difference;
use dtn_openflow::Message;
use std::collections::{BTreeMap, BTreeSet};

/// A part of the work for a slice on all its switches. Each of them has ended one (a barrier was
/// answered) before any begins the next; within one the order is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Who is not wanted gets no frame in any more.
    Shut,
    /// What forwarded for them goes. Before anything new: a new slice may have the tag of an old
    /// one, and must not find its rules. Rules of the access table wait for [`Step::Revoke`]: they
    /// bring nothing anywhere.
    Clear,
    /// Meters and groups, which rules refer to.
    Furnish,
    /// Access rules that drop, before any new one that lets pass, and before there is a new way to a
    /// gateway.
    Deny,
    /// Rules of the access table that let pass.
    Allow,
    /// Rules that forward, when nobody is admitted to them yet.
    Forward,
    /// Rules of the access table that let pass what is not wanted any more: the new ones are there.
    Revoke,
    /// And only now those that drop.
    Lift,
    /// Who is wanted gets in; a changed rule takes the place of the old one.
    Admit,
    /// Meters that no rule uses any more: a meter takes its flows with it (OpenFlow 1.3.5 §6.5).
    Retire,
}
/// All steps, in order.
pub const STEPS: [Step; 10] = [
    Step::Shut,
    Step::Clear,
    Step::Furnish,
    Step::Deny,
    Step::Allow,
    Step::Forward,
    Step::Revoke,
    Step::Lift,
    Step::Admit,
    Step::Retire,
];

/// Messages by their [`Step`].
pub type Steps = [Vec<Message>; STEPS.len()];

/// What is to be done at one switch for one slice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// The messages of every [`Step`].
    pub steps: Steps,
    /// The same in words.
    pub differences: Vec<Difference>,
}

/// What is to be done at one switch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// By the slice's tag; 0 is for what belongs to a port or to nobody.
    pub parts: BTreeMap<u16, Part>,
    /// Tags that a rule goes from and to: it leaves the one slice before the other one takes it.
    pub moves: BTreeSet<(u16, u16)>,
    /// What is somebody else's, in words.
    pub foreign: Vec<Difference>,
}
impl Changes {
    /// Whether the switch has what it shall have.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
    /// How many messages it takes.
    pub fn len(&self) -> usize {
        let steps = self.parts.values().flat_map(|part| &part.steps);
        steps.map(Vec::len).sum()
    }
    /// All that is to be done in a step.
    pub fn at(&self, step: Step) -> Vec<&Message> {
        let parts = self.parts.values();
        let messages = parts.filter_map(|part| part.steps.get(step as usize));
        messages.flatten().collect()
    }
    /// All in words, what is somebody else's last.
    pub fn differences(&self) -> impl Iterator<Item = &Difference> {
        let parts = self.parts.values().flat_map(|part| &part.differences);
        parts.chain(&self.foreign)
    }
}
