//! What was lost or broken on the way in and out.

use super::NicHealth;
use crate::health::{Findings, Level};
use dtn_link::inventory::LinkFaults;

/// So often a carrier comes and goes by being cabled, configured and moved into pods.
const CARRIER_CHANGES: u64 = 20;

pub(super) fn faults(say: &mut Findings, nic: &NicHealth, total: &LinkFaults) {
    let now = nic.look.map(|look| look.faults).unwrap_or_default();
    let over = nic.look.map_or_else(String::new, |look| {
        format!(" in {}.{} s", look.millis / 1000, look.millis % 1000 / 100)
    });
    let next = format!(
        "ethtool -S {0} | grep -v ': 0$'; dtnctl doctor --look 60s",
        nic.name
    );
    let before = say.found.len();
    // more of it while it was looked at is an alarm; what was before may have been mended since
    let counted = |say: &mut Findings, check, what, now: u64, total: u64, remedy: &'static str| {
        let (level, text) = match (now, total) {
            (0, 0) => return,
            (0, _) => {
                let text = format!("{total} {what} since the start, none{over}");
                (Level::Warning, text)
            }
            _ => {
                let text = format!("{now} {what}{over}, {total} in all");
                (Level::Alarm, text)
            }
        };
        say.mend(level, check, text, remedy, next.clone());
    };
    let bad = |faults: &LinkFaults| faults.crc + faults.length + faults.frame;
    let late = |faults: &LinkFaults| faults.missed + faults.fifo;
    let wire = "clean and change cable and modules, look at the light level";
    counted(
        say,
        "errors",
        "broken frames came in",
        bad(&now),
        bad(total),
        wire,
    );
    let host = "raise the rings, spread the interrupts, look at the load of their processors";
    counted(
        say,
        "drops",
        "frames were lost for want of buffers",
        late(&now),
        late(total),
        host,
    );
    if now.carrier_changes > 0 {
        let text = format!(
            "the carrier came or went {} times{over}",
            now.carrier_changes
        );
        say.mend(
            Level::Alarm,
            "carrier",
            text,
            wire,
            format!("journalctl -k | grep {}", nic.name),
        );
    } else if total.carrier_changes > CARRIER_CHANGES {
        let text = format!(
            "the carrier came or went {} times since the start",
            total.carrier_changes
        );
        say.mend(
            Level::Note,
            "carrier",
            text,
            "look whether it flaps, or was moved into that many pods",
            next,
        );
    }
    if total.carrier > 0 {
        let text = format!(
            "{} frames were cut off by a carrier that was lost",
            total.carrier
        );
        say.say(Level::Warning, "carrier", text).remedy = Some(wire.into());
    }
    if say.found.len() == before {
        let also = match total.dropped {
            0 => String::new(),
            dropped => format!("; the stack dropped {dropped} that nobody wanted"),
        };
        say.ok("errors", format!("none{over}{also}"));
    }
}
