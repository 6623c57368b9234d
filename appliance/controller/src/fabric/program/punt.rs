//! Rules that hand frames to the controller, for fabrics in which frames come here: what tells how
//! switches are joined, and questions for neighbours where the controller answers them.

use super::{FlowKey, Neighbours, Program, Programs, Purpose, Rule, Then, asks, frames};

/// Adds the rules that hand frames over to what the switches shall hold.
pub fn punt(programs: &mut Programs, neighbours: Neighbours) {
    for program in programs.switches.values_mut() {
        if neighbours == Neighbours::Proxy {
            asks::ask(program);
        }
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
