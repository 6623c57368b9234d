//! CNI IPAM plugin: addresses from vDHCP for other plugins.

use std::process::ExitCode;

fn main() -> ExitCode {
    dtn_cni::ipam::main()
}
