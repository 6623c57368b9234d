//! Memory, processors and disk room of this host. Only what is asked for is read: a refresh of
//! everything would open a handle for each process of the host.

use std::path::{Path, PathBuf};
use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, RefreshKind, System};

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostFacts {
    /// All memory, bytes.
    pub memory_bytes: u64,
    /// Memory that can be had without swapping, bytes.
    pub memory_available_bytes: u64,
    /// Number of processors.
    pub processors: u64,
    /// How busy they were since the last reading, 0 to 1; 0 at the first.
    pub busy: f64,
    /// The folders that were asked for, with all and free bytes of the file system they are on.
    pub disks: Vec<(PathBuf, u64, u64)>,
}

/// Reads them again and again: how busy processors are is a difference.
#[derive(Debug)]
pub struct HostReader {
    system: System,
}

impl HostReader {
    /// Takes the first reading.
    pub fn new() -> Result<Self, String> {
        let kind = RefreshKind::nothing()
            .with_memory(MemoryRefreshKind::nothing().with_ram())
            .with_cpu(CpuRefreshKind::nothing().with_usage());
        let system = System::new_with_specifics(kind)
            .map_err(|e| format!("reading memory and processors: {e:?}"))?;
        Ok(Self { system })
    }

    /// Reads again, with the room of the file systems of these folders.
    pub fn read(&mut self, folders: &[&Path]) -> HostFacts {
        self.system
            .refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.system.refresh_cpu_usage();
        HostFacts {
            memory_bytes: self.system.total_memory(),
            memory_available_bytes: self.system.available_memory(),
            processors: self.system.cpus().len() as u64,
            busy: f64::from(self.system.global_cpu_usage()) / 100.0,
            disks: disks(folders),
        }
    }
}

/// All and free bytes below each folder; a folder on a file system that is not listed (a tmpfs) is
/// left out.
fn disks(folders: &[&Path]) -> Vec<(PathBuf, u64, u64)> {
    let Ok(list) =
        Disks::new_with_refreshed_list_specifics(DiskRefreshKind::nothing().with_storage())
    else {
        return Vec::new();
    };
    let below = |folder: &Path| {
        let mounts = (&list)
            .into_iter()
            .filter(|disk| folder.starts_with(disk.mount_point()));
        mounts
            .max_by_key(|disk| disk.mount_point().as_os_str().len())
            .map(|disk| {
                (
                    folder.to_owned(),
                    disk.total_space(),
                    disk.available_space(),
                )
            })
    };
    folders.iter().filter_map(|folder| below(folder)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_memory_and_processors() {
        let facts = HostReader::new().unwrap().read(&[Path::new("/")]);
        assert!(facts.memory_bytes > facts.memory_available_bytes);
        assert!(facts.memory_available_bytes > 0 && facts.processors > 0);
        assert!((0.0..=1.01).contains(&facts.busy));
        for (_, all, free) in facts.disks {
            assert!(free <= all);
        }
    }
}
