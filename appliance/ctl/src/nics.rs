//! `dtnctl nics`: what the host has, what the site gave, and what must not be taken, with reasons.

use crate::{
    answer::{items, json},
    cli::Context,
    failure::{Done, Outcome, while_doing},
    place::{Daemon, LOOK_UP},
    table::Table,
    wording::rate_or_dash,
};
use dtn_api::nic::{Nic, NicClass};

/// Asks the supervisor.
pub(crate) async fn run(context: &Context) -> Outcome {
    let link = context.place.connect(Daemon::Dtnd, LOOK_UP)?;
    let answer = link
        .list("/nics")
        .await
        .map_err(|error| while_doing("asking for the NICs", error))?;
    if context.json {
        return json(&answer);
    }
    let nics: Vec<Nic> = items(&answer, "the NICs")?;
    let done = Done::text(shown(&nics));
    let free = nics
        .iter()
        .any(|nic| nic.class.is_some() && nic.guarded.is_empty() && nic.used_by.is_empty());
    Ok(if nics.iter().all(|nic| nic.class.is_none()) {
        done.next(
            "give NICs to the appliance with [[nic]] in /etc/dtn/appliance.toml, then dtnctl config reload",
        )
    } else if free {
        done.next(format!(
            "reserve bandwidth: {} slice reserve NAME --for 1h",
            context.place.command()
        ))
    } else {
        done
    })
}

fn shown(nics: &[Nic]) -> String {
    let mut table = Table::new(&[
        "NIC", "CLASS", "LINK", "SPEED", "MTU", "MAC", "PCI", "DRIVER", "USED BY", "FOR PODS",
    ]);
    for nic in nics {
        let class = nic
            .class
            .map_or_else(|| "not given".into(), |class| class.to_string());
        let pci = nic.identity.pci.as_ref().map(ToString::to_string);
        let may = match (nic.class, nic.guarded.as_slice()) {
            (_, [first, ..]) => format!("never: {first}"),
            (None, []) => "no: the site did not give it".into(),
            (Some(_), []) => match gateway_of(nic) {
                Some(key) => format!("no: {key} has it"),
                None => "yes".into(),
            },
        };
        table.row([
            nic.name.to_string(),
            class,
            match (nic.carrier, nic.up) {
                (true, _) => "up",
                (false, true) => "NO CARRIER",
                (false, false) => "OFF",
            }
            .into(),
            rate_or_dash(nic.speed),
            nic.mtu.to_string(),
            nic.mac.to_string(),
            pci.unwrap_or_default(),
            nic.driver.clone().unwrap_or_default(),
            nic.used_by.join(","),
            may,
        ]);
        // the other reasons under the first, so that all of them are seen at once
        for reason in nic.guarded.iter().skip(1) {
            let mut cells = vec![" ".to_owned(); 9];
            cells.push(format!("       {reason}"));
            table.row(cells);
        }
    }
    table.print("no NICs: this host shows none to the appliance")
}

/// The gateway that a NIC is in whole. A shared one is only lent a child of, so that pods may have
/// more of them.
fn gateway_of(nic: &Nic) -> Option<&String> {
    let held = |key: &&String| dtnd::gateway::is_key(key);
    let whole = nic.class == Some(NicClass::Dedicated);
    nic.used_by.iter().find(held).filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_reason_is_shown() {
        let identity = json!({"pci": "0000:3b:00.0"});
        let nics: Vec<Nic> = serde_json::from_value(json!([
            {"name": "ens1f0", "identity": identity, "mac": "02:00:5e:10:00:01",
             "class": "dedicated", "carrier": true, "speed": "100Gbit", "mtu": 9000,
             "driver": "mlx5_core"},
            {"name": "ens1f1", "identity": {}, "mac": "02:00:5e:10:00:02", "class": "shared",
             "carrier": false, "speed": null, "mtu": 1500, "driver": "mlx5_core",
             "used_by": ["3f9c", "77aa"]},
            {"name": "eno1", "identity": {}, "mac": "02:00:5e:10:00:03", "class": null,
             "carrier": true, "speed": "1Gbit", "mtu": 1500, "driver": null,
             "guarded": ["it carries the default route", "it has the address of ssh"]},
            {"name": "ext0", "identity": {}, "mac": "02:00:5e:10:00:04", "class": "dedicated",
             "carrier": true, "speed": "10Gbit", "mtu": 1500, "driver": null,
             "used_by": ["gateway-internet"]},
        ]))
        .unwrap();
        insta::assert_snapshot!(shown(&nics));
    }
}
