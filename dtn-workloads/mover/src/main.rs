//! `dtn-mover`, the command line of the transfer pod. Exit codes: 0 done, 1 failed or different,
//! 2 usage, 3 the comparison could not be made.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use dtn_mover::{
    cache,
    events::Events,
    layout::{self, KeyCopy},
    list::List,
    manifest,
    plan::Limits,
    receive, send, watch,
    xrd::{Remote, Tools},
};
use nix::sys::{prctl, signal::Signal};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufReader, BufWriter, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

/// Moves trees of files between two sites with XRootD's own tools.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 failed or different, 2 usage, 3 no comparison could be made."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the manifest of a tree to standard output: every path with type, size, mode, SHA-256.
    Manifest {
        /// The tree.
        dir: PathBuf,
        /// Threads that hash.
        #[arg(long, default_value_t = 4)]
        threads: usize,
    },
    /// Compare two manifests; every difference is a line of JSON, and exit code 1.
    Compare {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Send a tree to a transfer folder on the far server; the same command goes on after a kill.
    Send {
        /// The tree.
        #[arg(long)]
        from: PathBuf,
        /// root://ADDRESS:PORT//FOLDER
        #[arg(long)]
        to: Remote,
        /// Folder of the journal, one for each transfer.
        #[arg(long)]
        state: PathBuf,
        /// TCP connections of a large file.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=15))]
        streams: u8,
        /// Bundles of small files on their way at once.
        #[arg(long, default_value_t = 3)]
        parallel: usize,
        /// MiB from which a file travels alone.
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
        large_mib: u64,
        /// MiB of a bundle.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=65_536))]
        bundle_mib: u64,
        /// Times a part is tried.
        #[arg(long, default_value_t = 5)]
        attempts: u32,
    },
    /// Receive one transfer: put its files in their places, and say when all are on the disk.
    Receive {
        /// The transfer's folder, as the server writes it.
        #[arg(long)]
        incoming: PathBuf,
        /// Where the tree goes; empty or not there, on the same volume.
        #[arg(long)]
        into: PathBuf,
        /// Seconds without anything new after which it fails.
        #[arg(long, default_value_t = 120)]
        idle: u64,
        /// Parts that are put in place at once.
        #[arg(long, default_value_t = 4)]
        threads: usize,
    },
    /// Print the list of a transfer for people: path, type, size.
    List {
        /// `list.ready` in the transfer's folder, or `list` in the sender's state folder.
        file: PathBuf,
    },
    /// Say when a file's first and last byte were written, and the rate between.
    Watch {
        /// The file; need not be there yet.
        file: PathBuf,
        /// Bytes that it will have.
        #[arg(long)]
        size: u64,
        /// Seconds to wait at most.
        #[arg(long, default_value_t = 3600)]
        deadline: u64,
    },
    /// Put a tree out of the page cache, so that it is read from the disk next.
    DropCache {
        /// The tree.
        dir: PathBuf,
    },
    /// Make the pod's folders and put its keys in place, where the node did not.
    LayOut {
        /// A folder, in one that is there; may be given again.
        #[arg(long)]
        folder: Vec<PathBuf>,
        /// A key to copy, for this user alone; may be given again.
        #[arg(long, value_name = "FROM=TO")]
        key: Vec<KeyCopy>,
    },
    /// Run a command that is killed when its parent, process PARENT, ends.
    #[command(hide = true)]
    WithParent {
        parent: i32,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let comparing = matches!(cli.verb, Verb::Compare { .. });
    match run(cli.verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dtn-mover: {error:#}");
            ExitCode::from(if comparing { 3 } else { 1 })
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Manifest { dir, threads } => {
            let entries = manifest::of(&dir, threads)?;
            manifest::write(&entries, BufWriter::new(io::stdout().lock()))
                .context("writing the manifest")?;
        }
        Verb::Compare { first, second } => {
            let read = |path: &PathBuf| -> anyhow::Result<_> {
                let reading = || format!("reading {}", path.display());
                let file = File::open(path).with_context(reading)?;
                manifest::read(BufReader::new(file)).with_context(reading)
            };
            let differences = manifest::compare(&read(&first)?, &read(&second)?);
            let mut out = BufWriter::new(io::stdout().lock());
            for difference in &differences {
                serde_json::to_writer(&mut out, difference)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
            if !differences.is_empty() {
                return Ok(ExitCode::from(1));
            }
        }
        Verb::Send {
            from,
            to,
            state,
            streams,
            parallel,
            large_mib,
            bundle_mib,
            attempts,
        } => {
            let settings = send::Settings {
                from,
                to,
                state,
                streams,
                parallel,
                limits: Limits {
                    large: large_mib << 20,
                    bundle_bytes: bundle_mib << 20,
                    ..Limits::default()
                },
                attempts,
            };
            let mover = std::env::current_exe().context("finding this program")?;
            send::run(&settings, &Tools { mover }, &Events::to(io::stdout()))?;
        }
        Verb::Receive {
            incoming,
            into,
            idle,
            threads,
        } => {
            let settings = receive::Settings {
                incoming,
                into,
                idle: Duration::from_secs(idle),
                threads,
            };
            receive::run(&settings, &Events::to(io::stdout()))?;
        }
        Verb::List { file } => {
            let bytes =
                std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let list = List::from_bytes(&bytes)?;
            let mut out = BufWriter::new(io::stdout().lock());
            for entry in &list.entries {
                writeln!(
                    out,
                    "{:>14} {:04o} {:?}",
                    entry.size(),
                    entry.mode,
                    entry.shown()
                )?;
            }
            out.flush()?;
        }
        Verb::Watch {
            file,
            size,
            deadline,
        } => {
            let flow = watch::until_whole(&file, size, Duration::from_secs(deadline))
                .with_context(|| format!("watching {}", file.display()))?;
            println!("{}", serde_json::to_string(&flow)?);
        }
        Verb::DropCache { dir } => println!("{}", serde_json::to_string(&cache::drop_tree(&dir)?)?),
        Verb::LayOut { folder, key } => layout::lay_out(&folder, &key)?,
        Verb::WithParent { parent, command } => return with_parent(parent, &command),
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command, with the kernel's promise to kill it when the parent ends.
fn with_parent(parent: i32, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, args) = command.split_first().context("no command is given")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("asking to end with the parent")?;
    // it may have ended before the promise
    anyhow::ensure!(
        nix::unistd::getppid().as_raw() == parent,
        "the parent {parent} has ended"
    );
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
