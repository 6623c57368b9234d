//! Who may connect as a switch.

use super::{Decision, Engine, not_found};
use crate::auth::{self, Principal};
use dtn_api::{Name, Problem, fabric::SwitchCertificate};

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
            let certificate = self
                .authority
                .certify(auth::SWITCH_ROLE, name, csr_pem, now)?;
            let made = SwitchCertificate {
                certificate_pem: certificate.pem,
                ca_pem: self.authority.ca_pem(),
            };
            let detail = format!("switch {name}");
            Ok(Decision::only(made).event("switch.certified", None, detail))
        })
        .await
    }
}
