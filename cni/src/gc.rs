//! GC: everything of this network that the runtime does not call valid is brought home.

use crate::{
    conf::Conf,
    delegate,
    env::{Environment, Verb},
    error::{CniError, Code},
    reconcile::{self, Leases},
    record,
};

/// Collects. Without a list nothing is touched: an absent key is a caller that says nothing, not
/// one that says "nobody is valid" (`null` and `[]` say that).
pub async fn gc(conf: &Conf, env: &Environment) -> Result<(), CniError> {
    let Some(valid) = &conf.valid else {
        tracing::warn!(
            "GC of network {} came without cni.dev/valid-attachments: nothing is collected",
            conf.name
        );
        return Ok(());
    };
    let (records, unreadable) = record::list(&conf.places);
    let mut failures: Vec<_> = unreadable.iter().map(ToString::to_string).collect();
    for record in &records {
        for interface in record.interfaces.iter().filter(|i| i.network == conf.name) {
            let is_valid = valid.iter().any(|v| {
                v.container_id == interface.container_id && v.ifname == interface.ifname.as_str()
            });
            if is_valid {
                continue;
            }
            let name = Some(&interface.ifname);
            match reconcile::reconcile(&conf.places, &record.key, name, Leases::Release).await {
                Ok(home) => tracing::info!("collected {home:?}"),
                Err(e) => failures.push(e.to_string()),
            }
        }
    }
    if let Some(mark) = delegate::mark(conf, env)
        && let Err(e) = delegate::call(&mark, Verb::Gc, None, "").await
    {
        failures.push(e.to_string());
    }
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!("collecting what is left of network {}", conf.name);
    Err(CniError::new(Code::Internal, message, failures.join("; ")))
}
