//! What sysfs says about NICs: where they sit, which driver has them, how fast they were trained.
//!
//! `/sys/class/net` shows the namespace in which it was *mounted*, whatever the thread that reads
//! it; so the root is given, and a test or a lab host gives its own.

mod function;

pub use function::{FunctionFacts, Sriov};

use crate::{Error, Result};
use dtn_api::{PciAddress, Rate};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A sysfs.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

/// The facts of one NIC; what a driver does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NicFacts {
    /// Where it sits; none of virtual links.
    pub pci: Option<PciAddress>,
    /// Name of its driver; none of virtual links.
    pub driver: Option<String>,
    /// NUMA node; none on machines with one.
    pub numa_node: Option<u32>,
    /// Speed as trained; none while the link is down, and of drivers that tell none.
    pub speed: Option<Rate>,
    /// `full` or `half`.
    pub duplex: Option<String>,
    /// What else its PCI function is.
    pub function: FunctionFacts,
}

impl Sysfs {
    /// The machine's own.
    pub fn system() -> Self {
        Self::at("/sys")
    }

    /// One that is mounted, or imitated, elsewhere.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The facts of the link with this name. A link that sysfs does not show (because it is in
    /// another namespace) is an error.
    pub fn nic(&self, name: &str) -> Result<NicFacts> {
        let class = self.root.join("class/net").join(name);
        if !class.exists() {
            return Err(Error::not_found(format!(
                "link {name} in {}",
                class.display()
            )));
        }
        let device = class.join("device");
        let pci = pci_above(&device)?;
        // virtio: the PCI device is the parent of `device`
        let function = match &pci {
            Some(address) => self.root.join("bus/pci/devices").join(address.as_str()),
            None => device.clone(),
        };
        Ok(NicFacts {
            driver: link_name(&device.join("driver"))?,
            // -1: the machine does not say
            numa_node: number(&function.join("numa_node"))?.and_then(|node| node.try_into().ok()),
            speed: speed(number(&class.join("speed"))?),
            duplex: text(&class.join("duplex"))?.filter(|duplex| duplex != "unknown"),
            function: match &pci {
                Some(_) => function::read(&function)?,
                None => FunctionFacts::default(),
            },
            pci,
        })
    }

    /// Names of the network devices of a PCI function (a NIC may have several, of several ports).
    pub fn names_at(&self, pci: &PciAddress) -> Result<Vec<String>> {
        let function = self.root.join("bus/pci/devices").join(pci.as_str());
        if !function.exists() {
            return Err(Error::not_found(format!("PCI device {pci}")));
        }
        let mut names = entries(&function.join("net"))?;
        for child in entries(&function)? {
            if child.starts_with("virtio") {
                names.extend(entries(&function.join(child).join("net"))?);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The driver that a PCI function is bound to (`vfio-pci`: then it has no network device).
    pub fn driver_at(&self, pci: &PciAddress) -> Result<Option<String>> {
        link_name(
            &self
                .root
                .join("bus/pci/devices")
                .join(pci.as_str())
                .join("driver"),
        )
    }

    /// Servers that the kernel's own storage clients are connected to, as iSCSI and NVMe over TCP:
    /// name of the connection and address as text.
    pub fn storage_connections(&self) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for connection in entries(&self.root.join("class/iscsi_connection"))? {
            let place = self.root.join("class/iscsi_connection").join(&connection);
            if let Some(address) = text(&place.join("persistent_address"))? {
                found.push((format!("iscsi {connection}"), address));
            }
        }
        for controller in entries(&self.root.join("class/nvme"))? {
            let address = text(
                &self
                    .root
                    .join("class/nvme")
                    .join(&controller)
                    .join("address"),
            )?;
            // "traddr=192.0.2.1,trsvcid=4420"; of a local controller it is a PCI address
            let server = address.as_deref().and_then(|text| {
                text.split(',')
                    .find_map(|part| part.strip_prefix("traddr="))
            });
            if let Some(server) = server.filter(|s| s.parse::<std::net::IpAddr>().is_ok()) {
                found.push((format!("nvme {controller}"), server.to_owned()));
            }
        }
        Ok(found)
    }
}

/// `speed` is in Mb/s, and -1 when the driver does not know.
fn speed(megabits: Option<i64>) -> Option<Rate> {
    let megabits = u64::try_from(megabits?).ok().filter(|speed| *speed > 0)?;
    // u32::MAX is SPEED_UNKNOWN, which old kernels print so
    (megabits < u64::from(u32::MAX)).then(|| Rate::from_bps(megabits * 1_000_000))
}

/// The PCI function that a device link leads to, or stands below (virtio, auxiliary devices).
pub(crate) fn pci_above(device: &Path) -> Result<Option<PciAddress>> {
    match fs::canonicalize(device) {
        Ok(path) => Ok(path
            .ancestors()
            .filter_map(|place| place.file_name()?.to_str()?.parse().ok())
            .next()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(format!("reading {}", device.display()), e)),
    }
}

pub(crate) fn link_name(link: &Path) -> Result<Option<String>> {
    match fs::read_link(link) {
        Ok(target) => Ok(target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())),
        // below a file: the device has no such part
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(Error::io(format!("reading {}", link.display()), e)),
    }
}

pub(crate) fn text(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        // EINVAL: "ask again when the link is up"; EOPNOTSUPP, EIO: the driver does not know
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) || matches!(
                e.raw_os_error().map(nix::errno::Errno::from_raw),
                Some(
                    nix::errno::Errno::EINVAL
                        | nix::errno::Errno::EOPNOTSUPP
                        | nix::errno::Errno::EIO
                        | nix::errno::Errno::ENODEV
                )
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(Error::io(format!("reading {}", file.display()), e)),
    }
}

pub(crate) fn number(file: &Path) -> Result<Option<i64>> {
    Ok(text(file)?.and_then(|text| text.parse().ok()))
}

pub(crate) fn entries(folder: &Path) -> Result<Vec<String>> {
    let doing = || format!("listing {}", folder.display());
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(doing(), e)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| Error::io(doing(), e))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn put(root: &Path, path: &str, content: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// A mlx5 port with two virtual functions, of which one is shown, and a virtio NIC, as kernels
    /// lay them out.
    pub(super) fn imitation() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let mlx = "devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0";
        put(root, &format!("{mlx}/net/ens1f0/speed"), "100000\n");
        put(root, &format!("{mlx}/net/ens1f0/duplex"), "full\n");
        put(root, &format!("{mlx}/numa_node"), "1\n");
        put(root, &format!("{mlx}/sriov_totalvfs"), "8\n");
        put(root, &format!("{mlx}/sriov_numvfs"), "2\n");
        put(
            root,
            &format!("{mlx}/infiniband/mlx5_0/node_type"),
            "1: CA\n",
        );
        let virtual_one = "devices/pci0000:3a/0000:3a:00.0/0000:3b:00.2";
        put(
            root,
            &format!("{virtual_one}/net/ens1f0v0/speed"),
            "100000\n",
        );
        put(
            root,
            &format!("{virtual_one}/infiniband/mlx5_2/node_type"),
            "1: CA\n",
        );
        symlink("../0000:3b:00.0", root.join(virtual_one).join("physfn")).unwrap();
        put(root, "bus/pci/drivers/mlx5_core/bind", "");
        symlink(
            "../../../../bus/pci/drivers/mlx5_core",
            root.join(mlx).join("driver"),
        )
        .unwrap();
        let virtio = "devices/pci0000:00/0000:00:03.0/virtio0";
        put(root, &format!("{virtio}/net/eth0/speed"), "-1\n");
        put(root, "devices/pci0000:00/0000:00:03.0/numa_node", "-1\n");
        fs::create_dir_all(root.join("class/net")).unwrap();
        fs::create_dir_all(root.join("bus/pci/devices")).unwrap();
        for (nic, device, function) in [
            ("ens1f0", mlx, mlx),
            ("ens1f0v0", virtual_one, virtual_one),
            ("eth0", virtio, "devices/pci0000:00/0000:00:03.0"),
        ] {
            let place = root.join(device).join("net").join(nic);
            symlink("../..", place.join("device")).unwrap();
            symlink(&place, root.join("class/net").join(nic)).unwrap();
            let name = Path::new(function).file_name().unwrap();
            symlink(root.join(function), root.join("bus/pci/devices").join(name)).unwrap();
        }
        dir
    }

    #[test]
    fn a_port_with_virtual_functions_tells_all() {
        let dir = imitation();
        let facts = Sysfs::at(dir.path()).nic("ens1f0").unwrap();
        assert_eq!(facts.pci.unwrap().as_str(), "0000:3b:00.0");
        assert_eq!(facts.driver.as_deref(), Some("mlx5_core"));
        assert_eq!(facts.numa_node, Some(1));
        assert_eq!(facts.speed, Some(Rate::from_bps(100_000_000_000)));
        assert_eq!(facts.duplex.as_deref(), Some("full"));
        assert_eq!(facts.function.sriov.unwrap().configured, 2);
        assert_eq!(facts.function.physical_function, None);
    }

    #[test]
    fn a_virtio_nic_has_the_address_of_its_parent_and_no_speed() {
        let dir = imitation();
        let sysfs = Sysfs::at(dir.path());
        let facts = sysfs.nic("eth0").unwrap();
        let pci = facts.pci.unwrap();
        assert_eq!(pci.as_str(), "0000:00:03.0");
        assert_eq!(
            (facts.speed, facts.numa_node, facts.function.sriov),
            (None, None, None)
        );
        assert_eq!(sysfs.names_at(&pci).unwrap(), ["eth0"]);
        assert_eq!(sysfs.driver_at(&pci).unwrap(), None);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let dir = imitation();
        let sysfs = Sysfs::at(dir.path());
        assert!(sysfs.nic("eth9").unwrap_err().is_not_found());
        assert!(
            sysfs
                .names_at(&"0000:99:00.0".parse().unwrap())
                .unwrap_err()
                .is_not_found()
        );
    }

    #[test]
    fn the_loopback_of_this_machine_is_no_hardware() {
        assert_eq!(Sysfs::system().nic("lo").unwrap(), NicFacts::default());
    }

    #[test]
    fn storage_over_the_network_is_found() {
        let dir = tempfile::tempdir().unwrap();
        put(
            dir.path(),
            "class/iscsi_connection/connection1:0/persistent_address",
            "192.0.2.9\n",
        );
        put(dir.path(), "class/nvme/nvme0/address", "0000:5e:00.0\n");
        put(
            dir.path(),
            "class/nvme/nvme1/address",
            "traddr=2001:db8::7,trsvcid=4420\n",
        );
        let found = Sysfs::at(dir.path()).storage_connections().unwrap();
        assert_eq!(
            found,
            [
                ("iscsi connection1:0".to_owned(), "192.0.2.9".to_owned()),
                ("nvme nvme1".to_owned(), "2001:db8::7".to_owned()),
            ]
        );
    }
}
