//! CNI plugin: behind a cluster's own network, gives a pod the NICs of its claims.

use std::process::ExitCode;

fn main() -> ExitCode {
    dtn_cni::chain::main()
}
