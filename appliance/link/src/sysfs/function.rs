//! What a PCI function is beside a NIC: where it hangs, which RDMA devices it has, and which part it
//! takes in SR-IOV. It keeps its place in sysfs while its network device sits in a sandbox.

use super::{Sysfs, entries, link_name, number};
use crate::{Error, Result};
use dtn_api::PciAddress;
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};

/// Virtual functions of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sriov {
    /// How many it can have.
    pub total: u32,
    /// How many it has now.
    pub configured: u32,
}

/// The facts of one PCI function; what it is not is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FunctionFacts {
    /// Root of its PCIe hierarchy, as `pci0000:3a`: devices of one root are close.
    pub pcie_root: Option<String>,
    /// Its RDMA devices, as `mlx5_0`; none where no driver for them is loaded.
    pub rdma: Vec<String>,
    /// What it can do of SR-IOV.
    pub sriov: Option<Sriov>,
    /// The function that it is a virtual function of. A machine that was given a virtual function
    /// by a hypervisor is not told.
    pub physical_function: Option<PciAddress>,
}

impl Sysfs {
    /// The facts of the function at this address. One that is not there is an error.
    pub fn function(&self, pci: &PciAddress) -> Result<FunctionFacts> {
        let function = self.root.join("bus/pci/devices").join(pci.as_str());
        if !function.exists() {
            return Err(Error::not_found(format!("PCI device {pci}")));
        }
        read(&function)
    }
}

/// The facts of the function that sysfs has there.
pub(super) fn read(function: &Path) -> Result<FunctionFacts> {
    let many = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
    let total = number(&function.join("sriov_totalvfs"))?;
    let configured = number(&function.join("sriov_numvfs"))?;
    let above = link_name(&function.join("physfn"))?;
    Ok(FunctionFacts {
        pcie_root: root(function)?,
        rdma: entries(&function.join("infiniband"))?,
        sriov: total.filter(|total| *total > 0).map(|total| Sriov {
            total: many(total),
            configured: many(configured.unwrap_or(0).max(0)),
        }),
        physical_function: above.and_then(|above| above.parse().ok()),
    })
}

/// The first part of where sysfs has a function: `/sys/devices/pci0000:3a/…`.
fn root(function: &Path) -> Result<Option<String>> {
    let path = match fs::canonicalize(function) {
        Ok(path) => path,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("reading {}", function.display()), e)),
    };
    let mut parts = path.components().map(|part| part.as_os_str());
    let root = parts.find(|part| part.to_string_lossy().starts_with("pci"));
    Ok(root.map(|root| root.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::imitation, *};

    fn at(address: &str) -> Result<FunctionFacts> {
        let dir = imitation();
        Sysfs::at(dir.path()).function(&address.parse().unwrap())
    }

    #[test]
    fn a_port_with_virtual_functions_and_rdma_tells_both() {
        let facts = at("0000:3b:00.0").unwrap();
        assert_eq!(facts.rdma, ["mlx5_0"]);
        assert_eq!(
            facts.sriov,
            Some(Sriov {
                total: 8,
                configured: 2
            })
        );
        assert_eq!(facts.physical_function, None);
        assert_eq!(facts.pcie_root.as_deref(), Some("pci0000:3a"));
    }

    #[test]
    fn a_virtual_function_says_whose_it_is() {
        let facts = at("0000:3b:00.2").unwrap();
        let above = facts.physical_function.unwrap();
        assert_eq!(above.as_str(), "0000:3b:00.0");
        assert_eq!(facts.rdma, ["mlx5_2"]);
        // the kernel shows the files to physical functions alone
        assert_eq!(facts.sriov, None);
    }

    #[test]
    fn a_plain_one_is_neither_and_one_that_is_gone_is_said() {
        let facts = at("0000:00:03.0").unwrap();
        assert_eq!(facts.pcie_root.as_deref(), Some("pci0000:00"));
        assert_eq!(
            (facts.rdma, facts.sriov, facts.physical_function),
            (Vec::new(), None, None)
        );
        assert!(at("0000:99:00.0").unwrap_err().is_not_found());
    }
}
