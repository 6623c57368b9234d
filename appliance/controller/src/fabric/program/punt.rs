//! Rules that hand frames to the controller, for fabrics in which frames come here: what tells how
//! switches are joined.

use super::{FlowKey, Program, Programs, Purpose, Rule, Then, frames};

/// Adds the rules that hand frames over to what the switches shall hold.
pub fn punt(programs: &mut Programs) {
    for program in programs.switches.values_mut() {
        discover(program);
    }
}

fn discover(program: &mut Program) {
    let purpose = Purpose::Discover;
    let (table, priority) = purpose.place();
    let key = FlowKey {
        table,
        priority,
        from: None,
        matches: frames::link_discovery(),
    };
    let rule = Rule {
        slice: None,
        tag: 0,
        purpose,
        number: 0,
        then: Then::Controller,
    };
    program.flows.insert(key, rule);
}
