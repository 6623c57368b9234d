//! What the files of the appliance say: whether the configuration would be taken, how long the
//! certificates live, and what was left over.

use crate::{
    place::Place,
    wording::{count, distance},
};
use dtn_api::layered::{self, ConfigError, ConfigProblem, Severity, Sources};
use dtn_tuning::health::{Findings, Level};
use dtnd::Places;
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    io,
    path::{Path, PathBuf},
};

/// What the configuration says, as far as it can be read.
#[derive(Default)]
pub(super) struct Configured {
    /// The host's part, where it is valid.
    pub(super) host: Option<dtnd::Config>,
    /// This host shall be a DTN.
    pub(super) wants_host: bool,
    /// This host shall carry a domain's controller.
    pub(super) wants_domain: bool,
}

/// Reads and checks it.
pub(super) fn configuration(place: &Place, say: &mut Findings) -> Configured {
    let mut found = Configured::default();
    let file = place.below(layered::DEFAULT_FILE);
    let next = format!("{} config check", place.command());
    if !file.exists() {
        say.mend(
            Level::Alarm,
            "config",
            format!("there is none at {}", file.display()),
            "copy the annotated reference there and edit it",
            next,
        );
        return found;
    }
    let sources = Sources::new(&file);
    match layered::parts(&sources) {
        Ok(parts) => {
            // with neither part the supervisor says what is missing
            found.wants_host = parts.host || !parts.domain;
            found.wants_domain = parts.domain;
        }
        Err(error) => {
            told(say, &file, Err(error), &next);
            return found;
        }
    }
    if found.wants_host {
        told(say, &file, dtnd::config::check(&sources), &next);
        if let Ok(loaded) = dtnd::config::load(&file) {
            found.host = Some(loaded.config);
        }
    }
    if found.wants_domain {
        told(say, &file, vdnd::config::check(&sources), &next);
    }
    found
}

fn told(
    say: &mut Findings,
    file: &Path,
    problems: Result<Vec<ConfigProblem>, ConfigError>,
    next: &str,
) {
    let shown = file.display();
    match problems {
        Ok(problems) if problems.is_empty() => say.ok("config", format!("{shown}: valid")),
        Ok(problems) => {
            for problem in problems {
                let level = match problem.severity {
                    Severity::Error => Level::Alarm,
                    Severity::Warning => Level::Warning,
                };
                say.mend(
                    level,
                    "config",
                    format!("{shown}: {}: {}", problem.path, problem.why),
                    "correct the field; a daemon that runs keeps what it read",
                    next,
                );
            }
        }
        Err(error)
            if std::fs::File::open(file)
                .is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) =>
        {
            say.say(
                Level::Note,
                "not looked at",
                format!("configuration: {error}"),
            );
        }
        Err(error) => say.mend(
            Level::Alarm,
            "config",
            error.to_string(),
            "correct it",
            next,
        ),
    }
}

/// How long the certificates of host and domain are good for.
pub(super) fn certificates(place: &Place, now: Timestamp, say: &mut Findings) {
    let places = Places::new(&place.root);
    let unreadable = |say: &mut Findings, what: String| {
        say.say(Level::Note, "not looked at", what);
    };
    match readable(&places.identity()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unreadable(say, format!("the host's certificate: {error}"));
        }
        _ => match dtnd::identity::load(&places) {
            Ok(Some(identity)) => {
                let what = format!("of host {} in domain {}", identity.host, identity.domain);
                life(
                    say,
                    &what,
                    &identity.certificate_pem,
                    now,
                    "dtnctl host join -",
                );
                life(
                    say,
                    &format!("of the authority of {}", identity.domain),
                    &identity.ca_pem,
                    now,
                    "dtnctl domain rotate-key",
                );
            }
            Ok(None) => say.ok("certificate", "this host is in no domain"),
            Err(problem) => say.mend(
                Level::Alarm,
                "certificate",
                problem.detail,
                "join the domain anew",
                "dtnctl host join -",
            ),
        },
    }
    let authority = place.below(dtn_api::STATE_DIR).join("vdn/keys/ca.pem");
    match std::fs::read_to_string(&authority) {
        Ok(pem) => life(
            say,
            "of this domain's authority",
            &pem,
            now,
            "dtnctl domain rotate-key",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unreadable(say, format!("{}: {error}", authority.display()));
        }
        Err(_) => {}
    }
}

fn readable(folder: &Path) -> io::Result<()> {
    std::fs::read_dir(folder).map(|_| ())
}

/// Of a chain, the first is the one.
fn life(say: &mut Findings, what: &str, pem: &str, now: Timestamp, renew: &str) {
    let read = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string());
    let times = read.and_then(|der| {
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| e.to_string())?;
        let validity = parsed.validity();
        let at = |seconds| Timestamp::from_second(seconds).map_err(|e| e.to_string());
        Ok((
            at(validity.not_before.timestamp())?,
            at(validity.not_after.timestamp())?,
        ))
    });
    let (from, until) = match times {
        Ok(times) => times,
        Err(error) => {
            return say.mend(
                Level::Alarm,
                "certificate",
                format!("{what}: {error}"),
                "join the domain anew",
                renew,
            );
        }
    };
    let left = until.as_second() - now.as_second();
    let all = (until.as_second() - from.as_second()).max(1);
    let text = |word: &str| format!("{what}: {word} {}", distance(until, now));
    if from > now {
        say.mend(
            Level::Alarm,
            "certificate",
            format!(
                "{what}: it is valid {}: this clock, or that of who made it, is wrong",
                distance(from, now)
            ),
            "set the clock right",
            "timedatectl timesync-status; chronyc tracking",
        );
    } else if left <= 0 {
        say.mend(
            Level::Alarm,
            "certificate",
            text("ended"),
            "renew it: nothing is opened with it any more",
            renew,
        );
    } else if left < all / 5 {
        // it renews itself at two thirds of its life
        say.mend(
            Level::Warning,
            "certificate",
            text("ends"),
            "it should have been renewed by now: see why that fails",
            "journalctl -u dtnd | grep -i renew",
        );
    } else {
        say.ok("certificate", text("ends"));
    }
}

/// Records that nobody carries on: half-way attachments, sandboxes that are gone, releases that wait.
pub(super) fn leftovers(place: &Place, supervised: bool, now: Timestamp, say: &mut Findings) {
    let places = Places::new(&place.root);
    let folder = places.attachments();
    match readable(&folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            say.say(
                Level::Note,
                "not looked at",
                format!("records: {}: {error}", folder.display()),
            );
            return;
        }
        Err(_) => return,
        Ok(()) => {}
    }
    let (records, torn) = dtnd::inventory::records(&places);
    for what in &torn {
        say.mend(
            Level::Alarm,
            "records",
            format!("a record cannot be read: {what}"),
            "its NIC is brought home by hand: see the file, then remove it",
            format!("ls -l {}", folder.display()),
        );
    }
    let mend = if supervised {
        "dtnd brings it home by itself: see its log when it stays"
    } else {
        "start dtnd: it brings it home"
    };
    let mut quiet = true;
    for record in &records {
        for held in &record.interfaces {
            let age = old(&folder, &record.key, now);
            let what = format!("pod {}, NIC {}", record.key, held.before.name);
            let state = if held.phase != dtn_cni::record::Phase::Attached {
                Some("half-way")
            } else if !held.netns.exists() {
                Some("its sandbox is gone")
            } else {
                None
            };
            if let Some(state) = state {
                quiet = false;
                say.mend(
                    Level::Warning,
                    "records",
                    format!("{what}: {state}{age}"),
                    mend,
                    format!("{} pods", place.command()),
                );
            }
        }
    }
    let waiting = dtnd::releases::queued(&places).map_or(0, |queued| queued.len());
    if waiting > 0 {
        say.say(
            Level::Note,
            "releases",
            format!(
                "{} wait for the controller to take them",
                count(waiting, "lease")
            ),
        );
    }
    if quiet && torn.is_empty() {
        say.ok(
            "records",
            format!("{} of attachments, none left over", records.len()),
        );
    }
}

fn old(folder: &Path, key: &str, now: Timestamp) -> String {
    let file: PathBuf = folder.join(dtn_api::attachment::file_name(key));
    let written = std::fs::metadata(file)
        .and_then(|found| found.modified())
        .ok()
        .and_then(|at| Timestamp::try_from(at).ok());
    written.map_or_else(String::new, |at| format!(", written {}", distance(at, now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(say: Findings) -> Vec<(String, Level)> {
        say.done()
            .into_iter()
            .map(|one| (one.check, one.level))
            .collect()
    }

    #[test]
    fn a_certificate_is_judged_by_what_is_left_of_its_life() {
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 4, 11);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        for (now, level) in [
            ("2025-12-31T00:00:00Z", Level::Alarm),
            ("2026-02-01T00:00:00Z", Level::Ok),
            ("2026-04-01T00:00:00Z", Level::Warning),
            ("2026-04-12T00:00:00Z", Level::Alarm),
        ] {
            let mut say = Findings::of("host");
            life(&mut say, "x", &pem, now.parse().unwrap(), "y");
            assert_eq!(levels(say), [("certificate".to_owned(), level)], "{now}");
        }
        let mut say = Findings::of("host");
        life(&mut say, "x", "junk", Timestamp::now(), "y");
        assert_eq!(levels(say)[0].1, Level::Alarm);
    }

    #[test]
    fn no_configuration_is_an_alarm_and_a_wrong_one_names_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::host(dir.path().into());
        let mut say = Findings::of("host");
        let found = configuration(&place, &mut say);
        assert!(!found.wants_host && found.host.is_none());
        assert_eq!(levels(say), [("config".to_owned(), Level::Alarm)]);
        let file = place.below(layered::DEFAULT_FILE);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(
            &file,
            "version = 1\n[host]\nname = \"dtn1\"\n[tuning]\nrtt = \"1h\"\n",
        )
        .unwrap();
        let mut say = Findings::of("host");
        assert!(configuration(&place, &mut say).wants_host);
        let found = say.done();
        assert!(
            found
                .iter()
                .any(|one| one.level == Level::Alarm && one.text.contains("tuning.rtt")),
            "{found:?}"
        );
    }

    #[test]
    fn torn_records_and_those_of_gone_sandboxes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::host(dir.path().into());
        let places = Places::new(dir.path());
        places.create().unwrap();
        std::fs::write(places.attachments().join("a.json"), "{").unwrap();
        let mut say = Findings::of("host");
        leftovers(&place, false, Timestamp::now(), &mut say);
        assert_eq!(levels(say), [("records".to_owned(), Level::Alarm)]);
    }
}
