//! CNI plugin: moves a whole NIC into a pod.

use std::process::ExitCode;

fn main() -> ExitCode {
    dtn_cni::run::main("vdn-host-device", dtn_api::nic::NicClass::Dedicated)
}
