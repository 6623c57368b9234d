//! CNI plugin: gives a pod a macvlan child of a shared NIC.

use std::process::ExitCode;

fn main() -> ExitCode {
    dtn_cni::run::main("vdn-macvlan", dtn_api::nic::NicClass::Shared)
}
