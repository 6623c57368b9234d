//! What goes into a support bundle. Each part stands for itself: a daemon that is dead, a program
//! that is not there or a file that cannot be read is written into the list and holds up nothing.

use super::pack::{Bundle, Keep};
use crate::{
    cli::Context,
    doctor,
    place::{Daemon, Place},
};
use dtn_api::Span;
use dtnd::Places;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

/// For one answer of a daemon or program.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the doctor watches the counters.
const LOOK: Span = Span::from_secs(2);
/// Lines of each journal.
const LINES: u32 = 5000;
/// Most records of one folder.
const MOST_RECORDS: usize = 200;

/// Gathers everything.
pub(super) async fn all(context: &Context, bundle: &mut Bundle) {
    let report = doctor::examine(context, LOOK).await;
    match serde_json::to_string(&report) {
        Ok(text) => bundle.add("doctor.json", &text, Keep::Beginning),
        Err(error) => bundle.leave_out("doctor.json", error.to_string()),
    }
    let mut words: Vec<String> = Vec::new();
    for nic in &report.nics {
        words.push(nic.name.clone());
        words.extend(nic.pcie.driver.clone());
        words.extend(nic.pcie.address.as_ref().map(ToString::to_string));
    }
    configuration(&context.place, bundle);
    daemons(&context.place, bundle).await;
    records(&context.place, bundle);
    system(&context.place, &words, bundle).await;
    for (what, why) in [
        (
            "identity, keys of the domain, tokens, credentials, kubeconfigs",
            "they are secrets",
        ),
        (
            "store.redb of vdnd",
            "it holds answers with certificates; what it knows is in vdnd/",
        ),
        ("environment of the daemons", "it can hold secrets"),
        ("data of pods", "it is the site's"),
    ] {
        bundle.leave_out(what, why);
    }
}

fn configuration(place: &Place, bundle: &mut Bundle) {
    let mut found = false;
    for folder in ["/etc/dtn", "/usr/share/dtn"] {
        for file in configuration_files(&place.below(folder)) {
            found = true;
            let name = shown(&file, &place.root);
            match std::fs::read_to_string(&file) {
                Ok(text) => bundle.add(&format!("config{name}"), &text, Keep::Beginning),
                Err(error) => bundle.leave_out(&name, error.to_string()),
            }
        }
    }
    if !found {
        bundle.leave_out("configuration", "there is none");
    }
}

/// TOML alone: what lies beside it can be a secret.
fn configuration_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && path.extension().is_some_and(|end| end == "d") {
            found.extend(configuration_files(&path));
        } else if path.extension().is_some_and(|end| end == "toml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn shown(file: &Path, root: &Path) -> String {
    let below = file.strip_prefix(root).unwrap_or(file);
    format!("/{}", below.display())
}

async fn daemons(place: &Place, bundle: &mut Bundle) {
    for (daemon, name, paths) in [
        (
            Daemon::Dtnd,
            "dtnd",
            &[
                "/status",
                "/nics",
                "/slices",
                "/leases",
                "/pods",
                "/gateways",
                "/metrics",
            ][..],
        ),
        (
            Daemon::Vdnd,
            "vdnd",
            &[
                "/readyz",
                "/hosts",
                "/nodes",
                "/slices",
                "/leases",
                "/domains",
                "/stitches",
                "/gateways",
                "/fabric",
                "/fabric/differences",
                "/topology",
                "/keys",
                "/events",
                "/metrics",
            ][..],
        ),
    ] {
        let link = match place.connect(daemon, PATIENCE) {
            Ok(link) => link,
            Err(failure) => {
                bundle.leave_out(&format!("answers of {name}"), failure.message());
                continue;
            }
        };
        for path in paths {
            // metrics are text
            if *path == "/metrics" {
                match link.text(path).await {
                    Ok(text) => bundle.add(&format!("{name}/metrics.txt"), &text, Keep::Beginning),
                    Err(error) => bundle.leave_out(&format!("{name}{path}"), error.to_string()),
                }
                continue;
            }
            match link.list(path).await {
                Ok(answer) => {
                    let file = path.trim_start_matches('/').replace('/', "-");
                    bundle.add(
                        &format!("{name}/{file}.json"),
                        &answer.to_string(),
                        Keep::Beginning,
                    );
                }
                Err(error) => bundle.leave_out(&format!("{name}{path}"), error.to_string()),
            }
        }
    }
}

fn records(place: &Place, bundle: &mut Bundle) {
    let places = Places::new(&place.root);
    for folder in [
        places.attachments(),
        places.releases(),
        places.negotiations(),
        places.gateways(),
        places.pods(),
        places.claims(),
        places.prepared(),
    ] {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                bundle.leave_out(&format!("records/{name}"), error.to_string());
                continue;
            }
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "json"));
        files.sort();
        if files.len() > MOST_RECORDS {
            bundle.leave_out(
                &format!("records/{name}"),
                format!("{} of {} records", files.len() - MOST_RECORDS, files.len()),
            );
        }
        for file in files.into_iter().take(MOST_RECORDS) {
            let member = format!(
                "records/{name}/{}",
                file.file_name().unwrap_or_default().to_string_lossy()
            );
            match dtn_link::atomic_file::read(&file, 1 << 20) {
                Ok(Some(bytes)) => {
                    bundle.add(&member, &String::from_utf8_lossy(&bytes), Keep::Beginning)
                }
                Ok(None) => {}
                Err(error) => bundle.leave_out(&member, error.to_string()),
            }
        }
    }
}

async fn system(place: &Place, words: &[String], bundle: &mut Bundle) {
    for (name, program, arguments) in [
        ("versions/dtnd.txt", "dtnd", &["--version"][..]),
        ("versions/vdnd.txt", "vdnd", &["--version"]),
        ("versions/podman.txt", "podman", &["--version"]),
        ("versions/kubelet.txt", "kubelet", &["--version"]),
        ("versions/kernel.txt", "uname", &["-a"]),
        ("system/links.txt", "ip", &["-s", "-d", "link"]),
        ("system/addresses.txt", "ip", &["address"]),
        (
            "system/routes.txt",
            "ip",
            &["route", "show", "table", "all"],
        ),
        ("system/queues.txt", "tc", &["-s", "qdisc"]),
        (
            "system/units.txt",
            "systemctl",
            &["--no-pager", "status", "dtnd", "vdnd"],
        ),
        ("system/processors.txt", "lscpu", &[]),
        ("system/pci.txt", "lspci", &["-nn"]),
        (
            "system/disks.txt",
            "lsblk",
            &["-o", "NAME,TYPE,SIZE,ROTA,MODEL,MOUNTPOINTS"],
        ),
    ] {
        match said(program, arguments).await {
            Ok(text) => bundle.add(name, &text, Keep::Beginning),
            Err(why) => bundle.leave_out(name, why),
        }
    }
    bundle.add(
        "versions/dtnctl.txt",
        concat!("dtnctl ", env!("CARGO_PKG_VERSION"), "\n"),
        Keep::Beginning,
    );
    for file in [
        "/etc/os-release",
        "/proc/meminfo",
        "/proc/interrupts",
        "/proc/net/softnet_stat",
        "/proc/net/snmp",
        "/proc/net/netstat",
    ] {
        let name = format!("system/{}.txt", file.rsplit('/').next().unwrap_or(file));
        match std::fs::read_to_string(file) {
            Ok(text) => bundle.add(&name, &text, Keep::Beginning),
            Err(error) => bundle.leave_out(&name, error.to_string()),
        }
    }
    bundle.add(
        "system/settings.txt",
        &settings(
            Path::new("/proc/sys"),
            &["net/core", "net/ipv4", "vm", "kernel/numa_balancing"],
        ),
        Keep::Beginning,
    );
    let lines = LINES.to_string();
    for unit in ["dtnd", "vdnd"] {
        let journal = said(
            "journalctl",
            &["-u", unit, "-n", &lines, "--no-pager", "-o", "short-iso"],
        )
        .await;
        match journal {
            Ok(text) if !text.trim().is_empty() => {
                bundle.add(&format!("journal/{unit}.log"), &text, Keep::End)
            }
            Ok(_) => bundle.leave_out(
                &format!("journal/{unit}.log"),
                "the journal has nothing of it",
            ),
            Err(why) => bundle.leave_out(&format!("journal/{unit}.log"), why),
        }
    }
    // daemons that no service manager runs write to files, as those of the lab
    for file in log_files(&place.below("/var/log/dtn")) {
        let name = format!(
            "journal/{}",
            file.file_name().unwrap_or_default().to_string_lossy()
        );
        match std::fs::read(&file) {
            Ok(bytes) => bundle.add(&name, &String::from_utf8_lossy(&bytes), Keep::End),
            Err(error) => bundle.leave_out(&name, error.to_string()),
        }
    }
    let kernel = match said(
        "journalctl",
        &["-k", "-n", &lines, "--no-pager", "-o", "short-iso"],
    )
    .await
    {
        Ok(text) if !text.trim().is_empty() => Ok(text),
        _ => said("dmesg", &[]).await,
    };
    match kernel {
        Ok(text) => bundle.add("journal/kernel-nics.log", &about(&text, words), Keep::End),
        Err(why) => bundle.leave_out("journal/kernel-nics.log", why),
    }
}

fn log_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "log"));
    files.sort();
    files.truncate(20);
    files
}

/// Lines of the kernel about NICs: their names, drivers and places, and what says that a link or a
/// bus is not well.
fn about(text: &str, words: &[String]) -> String {
    const SIGNS: [&str; 8] = [
        "Link is",
        "NIC Link",
        "link becomes",
        "AER",
        "pcieport",
        "tx timeout",
        "firmware",
        "NETDEV WATCHDOG",
    ];
    let wanted = |line: &&str| {
        SIGNS.iter().any(|sign| line.contains(sign))
            || words.iter().any(|word| line.contains(word.as_str()))
    };
    text.lines()
        .filter(wanted)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Every setting below some folders of `/proc/sys` that can be read. Those that a read would change, or
/// that hold a secret, are left out.
fn settings(root: &Path, below: &[&str]) -> String {
    const DENIED: [&str; 3] = ["tcp_fastopen_key", "stable_secret", "drop_caches"];
    let mut text = String::new();
    let mut places: Vec<PathBuf> = below.iter().rev().map(|part| root.join(part)).collect();
    while let Some(place) = places.pop() {
        if place.is_dir() {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(&place)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            entries.sort();
            places.extend(entries.into_iter().rev());
            continue;
        }
        let name = place
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if DENIED.contains(&name.as_str()) {
            continue;
        }
        if let Ok(value) = std::fs::read_to_string(&place) {
            let key = place
                .strip_prefix(root)
                .unwrap_or(&place)
                .display()
                .to_string();
            text.push_str(&format!("{key} = {}\n", value.trim().replace('\n', " | ")));
        }
    }
    text
}

/// What a program says on either output, in time.
async fn said(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{program}: {error}")),
        Err(_) => {
            return Err(format!(
                "{program}: no answer within {} s",
                PATIENCE.as_secs()
            ));
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.stdout.is_empty() && !output.status.success() {
        let why = text(&output.stderr);
        return Err(format!(
            "{program}: {}",
            why.lines().next().unwrap_or("it failed")
        ));
    }
    Ok(text(&output.stdout) + &text(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kernels_lines_those_about_nics_are_kept() {
        let log =
            "a usb 1-1: new device\nb mlx5_core 0000:3b:00.0: x\nc ens1f0: y\nd pcieport: AER\n";
        let words = ["mlx5_core".to_owned(), "ens1f0".to_owned()];
        let kept = about(log, &words);
        assert_eq!(kept.lines().count(), 3, "{kept}");
        assert!(!kept.contains("usb"));
    }

    #[test]
    fn settings_of_this_machine_are_read_without_their_secrets() {
        let text = settings(Path::new("/proc/sys"), &["net/ipv4"]);
        assert!(text.contains("net/ipv4/tcp_rmem = "), "{text}");
        assert!(!text.contains("tcp_fastopen_key"), "{text}");
    }
}
