//! What to do next for one pod: a pure rule over what the book, the engine, the plugin's record and
//! the kernel say. Deploy, restart of `dtnd`, restart of a pod and reboot are all the same rule,
//! asked again after each step until there is nothing left to do.
//!
//! Invariant: the order is prepare, make, sandbox, pin, attach, start, so that the NIC is never in a
//! sandbox that dies with its process, and nothing of the pod runs before its NIC is there.

use super::book::{Step, Wanted};

/// A pod in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenPod {
    /// All of its containers were made.
    pub whole: bool,
    /// Inode of its sandbox; `None` when the container that holds it does not run.
    pub sandbox: Option<u64>,
    /// How many of its other containers run.
    pub running: usize,
    /// Whether that is all of them.
    pub all_run: bool,
}

/// The pin of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// There is none.
    None,
    /// A file on which nothing is bound (any more).
    Empty,
    /// Of the namespace with this inode.
    Of(u64),
}

/// What the plugin's record says of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenRecord {
    /// It came to its end and was read back.
    pub attached: bool,
    /// Inode of the sandbox.
    pub sandbox: u64,
}

/// All that is seen of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// In the engine.
    pub pod: Option<SeenPod>,
    /// On disk.
    pub pin: Pin,
    /// Whether there is a prepared file.
    pub prepared: bool,
    /// The plugin's record.
    pub record: Option<SeenRecord>,
}

/// How a pod is when nothing is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// All of it runs.
    Runs,
    /// A container does not run.
    ContainerDown,
    /// The engine was told by someone to stop it; its NIC stays its own.
    Stopped,
    /// The container that holds the sandbox ended; the others go on in the sandbox that is pinned.
    SandboxOrphaned,
    /// It could not be made.
    Failed,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Do {
    /// Have the engine make it.
    Make,
    /// The engine was cut off when it made it: remove what there is.
    Unmake,
    /// Start the container that holds the sandbox.
    StartSandbox,
    /// Take the interface out of a sandbox that is the pod's no more; it keeps its lease.
    BringHome,
    /// Take a pin away that is not of the pod's sandbox.
    Unpin,
    /// Pin the sandbox.
    Pin,
    /// Have NIC, lease and slice.
    Prepare,
    /// Run the plugin.
    Attach,
    /// Start the containers.
    Start,
    /// Somebody removed it from the engine: clear up after it.
    ClearUp,
    /// Take it down.
    TakeDown,
    /// Nothing.
    Rest(Health),
}

/// The rule. `same_boot`: the machine was not started anew since the pod was.
pub fn next(wanted: Wanted, step: Step, same_boot: bool, seen: &Seen) -> Do {
    match wanted {
        Wanted::Up => {}
        Wanted::Down => return Do::TakeDown,
        Wanted::Failed => return Do::Rest(Health::Failed),
    }
    let Some(pod) = seen.pod else {
        return match step {
            // what cannot be had is told before the engine has made anything
            Step::Booked | Step::Made if !seen.prepared => Do::Prepare,
            Step::Booked | Step::Made => Do::Make,
            Step::Attaching | Step::Started => Do::ClearUp,
        };
    };
    if !pod.whole && step <= Step::Made {
        return Do::Unmake;
    }
    let Some(sandbox) = pod.sandbox else {
        return match step {
            _ if pod.running > 0 => Do::Rest(Health::SandboxOrphaned),
            Step::Started if same_boot => Do::Rest(Health::Stopped),
            _ => Do::StartSandbox,
        };
    };
    match seen.record {
        Some(record) if record.sandbox != sandbox => return Do::BringHome,
        _ => {}
    }
    match seen.pin {
        Pin::None => return Do::Pin,
        Pin::Of(inode) if inode == sandbox => {}
        Pin::Empty | Pin::Of(_) => return Do::Unpin,
    }
    if !seen.prepared {
        return Do::Prepare;
    }
    match seen.record {
        Some(SeenRecord { attached: true, .. }) => {}
        _ => return Do::Attach,
    }
    match (pod.all_run, step) {
        (true, Step::Started) => Do::Rest(Health::Runs),
        (false, Step::Started) => Do::Rest(Health::ContainerDown),
        _ => Do::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u64 = 7;
    const OLD: u64 = 3;

    fn pod(sandbox: Option<u64>, running: usize) -> Option<SeenPod> {
        Some(SeenPod {
            whole: true,
            sandbox,
            running,
            all_run: running == 1,
        })
    }
    fn record(attached: bool, sandbox: u64) -> Option<SeenRecord> {
        Some(SeenRecord { attached, sandbox })
    }
    fn seen(pod: Option<SeenPod>, pin: Pin, prepared: bool, record: Option<SeenRecord>) -> Seen {
        Seen {
            pod,
            pin,
            prepared,
            record,
        }
    }

    #[test]
    fn every_combination_has_its_step() {
        use Pin::{Empty, None as Bare, Of};
        use Step::{Attaching, Booked, Made, Started};
        let half = Some(SeenPod {
            whole: false,
            sandbox: None,
            running: 0,
            all_run: false,
        });
        let table: &[(&str, Step, bool, Seen, Do)] = &[
            (
                "asked",
                Booked,
                true,
                seen(None, Bare, false, None),
                Do::Prepare,
            ),
            ("had", Booked, true, seen(None, Bare, true, None), Do::Make),
            (
                "killed before the engine",
                Made,
                true,
                seen(None, Bare, true, None),
                Do::Make,
            ),
            (
                "engine cut off",
                Made,
                true,
                seen(half, Bare, false, None),
                Do::Unmake,
            ),
            (
                "made",
                Made,
                true,
                seen(pod(None, 0), Bare, false, None),
                Do::StartSandbox,
            ),
            (
                "sandbox up",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Bare, false, None),
                Do::Pin,
            ),
            (
                "killed in the bind",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Empty, false, None),
                Do::Unpin,
            ),
            (
                "pinned",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Of(HERE), false, None),
                Do::Prepare,
            ),
            (
                "prepared",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Of(HERE), true, None),
                Do::Attach,
            ),
            (
                "plugin killed",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Of(HERE), true, record(false, HERE)),
                Do::Attach,
            ),
            (
                "attached",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Of(HERE), true, record(true, HERE)),
                Do::Start,
            ),
            (
                "started, not noted",
                Attaching,
                true,
                seen(pod(Some(HERE), 1), Of(HERE), true, record(true, HERE)),
                Do::Start,
            ),
            (
                "runs",
                Started,
                true,
                seen(pod(Some(HERE), 1), Of(HERE), true, record(true, HERE)),
                Do::Rest(Health::Runs),
            ),
            (
                "a container ended",
                Started,
                true,
                seen(pod(Some(HERE), 0), Of(HERE), true, record(true, HERE)),
                Do::Rest(Health::ContainerDown),
            ),
            (
                "restarted by hand",
                Started,
                true,
                seen(pod(Some(HERE), 1), Of(OLD), true, record(true, OLD)),
                Do::BringHome,
            ),
            (
                "home again",
                Started,
                true,
                seen(pod(Some(HERE), 1), Of(OLD), true, None),
                Do::Unpin,
            ),
            (
                "unpinned",
                Started,
                true,
                seen(pod(Some(HERE), 1), Bare, true, None),
                Do::Pin,
            ),
            (
                "in the new sandbox",
                Started,
                true,
                seen(pod(Some(HERE), 1), Of(HERE), true, None),
                Do::Attach,
            ),
            (
                "mounts lost, sandbox not",
                Started,
                true,
                seen(pod(Some(HERE), 1), Empty, true, record(true, HERE)),
                Do::Unpin,
            ),
            (
                "prepared file lost",
                Started,
                true,
                seen(pod(Some(HERE), 1), Of(HERE), false, record(true, HERE)),
                Do::Prepare,
            ),
            (
                "stopped by hand",
                Started,
                true,
                seen(pod(None, 0), Of(OLD), true, record(true, OLD)),
                Do::Rest(Health::Stopped),
            ),
            (
                "sandbox process killed",
                Started,
                true,
                seen(pod(None, 1), Of(OLD), true, record(true, OLD)),
                Do::Rest(Health::SandboxOrphaned),
            ),
            (
                "after a reboot",
                Started,
                false,
                seen(pod(None, 0), Bare, false, record(true, OLD)),
                Do::StartSandbox,
            ),
            (
                "reboot, sandbox up",
                Attaching,
                true,
                seen(pod(Some(HERE), 0), Bare, false, record(true, OLD)),
                Do::BringHome,
            ),
            (
                "removed by hand",
                Started,
                true,
                seen(None, Of(OLD), true, record(true, OLD)),
                Do::ClearUp,
            ),
            (
                "removed while attaching",
                Attaching,
                true,
                seen(None, Of(OLD), true, None),
                Do::ClearUp,
            ),
        ];
        for (what, step, same_boot, seen, expected) in table {
            let found = next(Wanted::Up, *step, *same_boot, seen);
            assert_eq!(found, *expected, "{what}");
            assert_eq!(next(Wanted::Down, *step, *same_boot, seen), Do::TakeDown);
            let kept = next(Wanted::Failed, *step, *same_boot, seen);
            assert_eq!(kept, Do::Rest(Health::Failed));
        }
    }

    /// From every state in which the engine has the pod, the steps lead to rest.
    #[test]
    fn from_every_state_the_steps_come_to_an_end() {
        let pins = [Pin::None, Pin::Empty, Pin::Of(HERE), Pin::Of(OLD)];
        let records = [
            None,
            record(false, HERE),
            record(true, HERE),
            record(true, OLD),
        ];
        for step in [Step::Booked, Step::Made, Step::Attaching, Step::Started] {
            for (pin, record) in pins.iter().flat_map(|p| records.map(|r| (*p, r))) {
                for (prepared, running, sandbox) in [
                    (false, 0, None),
                    (true, 1, Some(HERE)),
                    (false, 0, Some(HERE)),
                ] {
                    let (mut state, mut step) =
                        (seen(pod(sandbox, running), pin, prepared, record), step);
                    let mut steps = 0;
                    loop {
                        let action = next(Wanted::Up, step, true, &state);
                        match (action, &mut state.pod) {
                            (Do::Rest(_), _) => break,
                            (Do::StartSandbox, Some(pod)) => {
                                pod.sandbox = Some(HERE);
                                step = Step::Attaching;
                            }
                            (Do::BringHome, _) => state.record = None,
                            (Do::Unpin, _) => state.pin = Pin::None,
                            (Do::Pin, _) => state.pin = Pin::Of(HERE),
                            (Do::Prepare, _) => state.prepared = true,
                            (Do::Attach, _) => state.record = self::record(true, HERE),
                            (Do::Start, Some(pod)) => {
                                (pod.running, pod.all_run, step) = (1, true, Step::Started);
                            }
                            other => panic!("{other:?}"),
                        }
                        steps += 1;
                        assert!(steps < 10, "{state:?}");
                    }
                }
            }
        }
    }
}
