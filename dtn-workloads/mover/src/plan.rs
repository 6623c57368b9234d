//! Which file goes in which part. Pure: the same tree and limits give the same parts.
//!
//! A small file costs more in round trips than in bytes, so small files share a bundle; a large
//! one travels alone, so that it can be resumed in its middle. Folders, links and empty files have
//! no content and are in the list alone.

use crate::tree::{Entry, Kind};
use serde::{Deserialize, Serialize};

/// What decides the parts.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A file of this size in bytes or more is a part of its own.
    pub large: u64,
    /// A bundle is closed when it has this many bytes of content.
    pub bundle_bytes: u64,
    /// A bundle is closed when it has this many files.
    pub bundle_files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            large: 16 << 20,
            // 0.3 s at 1 Gb/s: short enough that the far side unpacks while the next one flies,
            // long enough that starting a process does not count
            bundle_bytes: 32 << 20,
            bundle_files: 4096,
        }
    }
}

/// What is in a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// Small files, by their places in the list.
    Bundle {
        /// Ascending.
        entries: Vec<usize>,
    },
    /// One large file, by its place in the list.
    Large {
        /// Its place.
        entry: usize,
    },
}

/// One upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1; 0 is the list.
    pub part: u32,
    /// Content in bytes, without what wraps it.
    pub bytes: u64,
    /// What it is.
    #[serde(flatten)]
    pub content: Content,
}

impl Part {
    /// How many files it brings.
    pub fn files(&self) -> usize {
        match &self.content {
            Content::Bundle { entries } => entries.len(),
            Content::Large { .. } => 1,
        }
    }
}

/// The parts of a tree: bundles first, then the large files, each in the order of the list.
pub fn parts(entries: &[Entry], limits: &Limits) -> Vec<Part> {
    let mut contents = Vec::new();
    let mut bundle = Vec::new();
    let mut bundled = 0;
    let mut large = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match entry.kind {
            Kind::File(0) | Kind::Dir | Kind::Symlink(_) => {}
            Kind::File(size) if size >= limits.large => {
                large.push((size, Content::Large { entry: index }));
            }
            Kind::File(size) => {
                bundle.push(index);
                bundled += size;
                if bundled >= limits.bundle_bytes || bundle.len() >= limits.bundle_files {
                    let entries = std::mem::take(&mut bundle);
                    contents.push((std::mem::take(&mut bundled), Content::Bundle { entries }));
                }
            }
        }
    }
    if !bundle.is_empty() {
        contents.push((bundled, Content::Bundle { entries: bundle }));
    }
    contents.extend(large);
    (1..)
        .zip(contents)
        .map(|(part, (bytes, content))| Part {
            part,
            bytes,
            content,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(index: usize, size: u64) -> Entry {
        Entry {
            path: format!("{index:06}").into_bytes(),
            kind: Kind::File(size),
            mode: 0o644,
            mtime_ns: 0,
            sha256: None,
        }
    }

    proptest! {
        #[test]
        fn every_file_with_content_is_in_exactly_one_part(
            sizes in proptest::collection::vec(0_u64..200, 0..60),
            large in 1_u64..150, bundle_bytes in 1_u64..400, bundle_files in 1_usize..10,
        ) {
            let entries: Vec<_> = sizes.iter().enumerate().map(|(i, s)| file(i, *s)).collect();
            let limits = Limits { large, bundle_bytes, bundle_files };
            let parts = parts(&entries, &limits);
            let mut seen = Vec::new();
            for (number, part) in (1..).zip(&parts) {
                prop_assert_eq!(part.part, number);
                let inside = match &part.content {
                    Content::Bundle { entries } => entries.clone(),
                    Content::Large { entry } => vec![*entry],
                };
                prop_assert_eq!(part.bytes, inside.iter().map(|i| sizes[*i]).sum::<u64>());
                prop_assert!(inside.len() <= bundle_files.max(1));
                seen.extend(inside);
            }
            seen.sort_unstable();
            let wanted: Vec<_> = (0..sizes.len()).filter(|i| sizes[*i] > 0).collect();
            prop_assert_eq!(seen, wanted);
        }
    }
}
