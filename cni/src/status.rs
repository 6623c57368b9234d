//! STATUS: could an ADD be served now? The runtime asks before it calls a node ready.

use crate::{
    conf::{Conf, Ipam},
    error::{CniError, Code},
    record, supervisor, wish,
};
use dtn_link::{Conn, Netns, atomic_file, inventory};

/// Success, or why not: 51 when attached pods may be cut off, else 50.
pub async fn status(conf: &Conf) -> Result<(), CniError> {
    let mut reasons = Vec::new();
    if let Err(e) = writable(conf) {
        reasons.push(e.to_string());
    }
    if conf.ipam == Ipam::Own
        && let Err(e) = supervisor::ready(&conf.places.socket).await
    {
        reasons.push(e.to_string());
    }
    let (records, unreadable) = record::list(&conf.places);
    reasons.extend(unreadable.iter().map(ToString::to_string));
    if !conf.nic.is_empty() {
        let host = Conn::current()?;
        let links = inventory::links(&host).await?;
        let selector = wish::Selector::Choice(conf.nic.clone());
        let held = records.iter().flat_map(|r| &r.interfaces).any(|i| {
            conf.nic
                .name
                .as_ref()
                .is_some_and(|name| i.before.name == name.as_str())
        });
        if !held && let Err(e) = wish::select(&links, Netns::current()?.inode(), &selector) {
            reasons.push(e.to_string());
        }
    }
    let cut_off: Vec<_> = records
        .iter()
        .flat_map(|record| record.interfaces.iter().map(move |i| (record, i)))
        .filter(|(_, i)| i.network == conf.name && Netns::open(&i.netns).is_err())
        .map(|(record, i)| format!("the sandbox of {} of pod {} is gone", i.ifname, record.key))
        .collect();
    let code = if cut_off.is_empty() {
        Code::NotAvailable
    } else {
        Code::LimitedConnectivity
    };
    reasons.extend(cut_off);
    if reasons.is_empty() {
        return Ok(());
    }
    let message = format!("network {} cannot take another pod", conf.name);
    Err(CniError::new(code, message, reasons.join("; ")))
}

/// A record could be written: tried, not guessed (a full disk shows in no mode bit).
fn writable(conf: &Conf) -> Result<(), CniError> {
    let probe = conf.places.attachments().join("_probe");
    atomic_file::create_folder(&conf.places.attachments(), 0o700)?;
    atomic_file::write(&probe, b"can a record be written?", 0o600)?;
    Ok(atomic_file::remove(&probe)?)
}
