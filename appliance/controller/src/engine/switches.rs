//! Who may connect as a switch.

use super::{Decision, Engine, not_found};
use crate::{
    auth::{Principal, SWITCH_ROLE},
    enrolled::{self, EnrolledRow},
    state::{Change, State},
};
use dtn_api::{Name, Problem, fabric::SwitchCertificate};
use jiff::Timestamp;
use std::collections::BTreeSet;

impl Engine {
    /// A certificate for a switch of the configuration.
    pub async fn certify_switch(
        &self,
        who: &Principal,
        name: &Name,
        csr_pem: &str,
    ) -> Result<SwitchCertificate, Problem> {
        let known = self.fabric.network().and_then(|net| net.switch(name));
        if known.is_none() {
            return Err(not_found("switch", name));
        }
        self.decide(who, |_, now| {
            let certificate = self.authority.certify(SWITCH_ROLE, name, csr_pem, now)?;
            let row = enrolled::enrolled(SWITCH_ROLE, name, &certificate, now);
            let made = SwitchCertificate {
                certificate_pem: certificate.pem,
                ca_pem: self.authority.ca_pem(),
            };
            let detail = format!("switch {name}");
            Ok(Decision::only(made)
                .event("switch.certified", None, detail)
                .change(Change::Enrolled(Box::new(row))))
        })
        .await
    }

    /// Notes which of its certificates each switch came with, where that is news. One that was
    /// certified before such things were written down is known from its first connection on.
    pub(super) fn age_switches(&self, state: &State, now: Timestamp, decision: &mut Decision<()>) {
        for (name, with) in self.fabric.proofs().into_iter().flatten() {
            let news = match state.enrolled.get(&(SWITCH_ROLE.to_owned(), name.clone())) {
                Some(row) => enrolled::came(row, &with),
                None => {
                    let shown = self.authority.turn().shown;
                    Some(enrolled::found(SWITCH_ROLE, &name, &with, shown, now))
                }
            };
            if let Some(row) = news {
                decision.changes.push(Change::Enrolled(Box::new(row)));
            }
        }
    }

    /// Switches of the configuration that come with certificates and have not come with a new one.
    pub(super) fn switches_behind(
        &self,
        state: &State,
        is_behind: impl Fn(&EnrolledRow) -> bool,
    ) -> BTreeSet<Name> {
        let (Some(proofs), Some(network)) = (self.fabric.proofs(), self.fabric.network()) else {
            return BTreeSet::new();
        };
        let names = network.switches.iter().map(|switch| &switch.name);
        names
            .filter(|name| {
                match state
                    .enrolled
                    .get(&(SWITCH_ROLE.to_owned(), (*name).clone()))
                {
                    Some(row) => is_behind(row),
                    None => proofs.contains_key(*name),
                }
            })
            .cloned()
            .collect()
    }
}
