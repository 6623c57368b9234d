//! The lab's parts without `dtnctl`, for this crate's own tests: `lab part …`, and `lab run STATE`
//! with the sites alone.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = match words.get(..2) {
        Some([lab, part]) if lab == "lab" && part == "part" => {
            dtn_lab::part::Part::parse(&words[2..]).and_then(dtn_lab::part::play)
        }
        Some([lab, plan]) if lab == "lab" && plan != "part" => run(plan),
        _ => Err(anyhow::anyhow!("usage: lab lab part … | lab lab PLAN")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(plan: &OsString) -> anyhow::Result<ExitCode> {
    let options: dtn_lab::Options = serde_json::from_slice(&std::fs::read(plan)?)?;
    dtn_lab::outer::run(&options)?;
    Ok(ExitCode::SUCCESS)
}
