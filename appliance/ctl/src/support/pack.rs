//! The archive: members of bounded size in one folder, a list of them, and what was left out and why.

use super::redact::Redactor;
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Longest member, in bytes; of a log its end is kept, of others their beginning.
pub(crate) const LONGEST_MEMBER: usize = 2 << 20;
/// All members together, in bytes before they are compressed.
pub(crate) const LONGEST: usize = 32 << 20;

/// Which part of a text that is too long is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Beginning,
    End,
}

/// A bundle while it is gathered.
#[derive(Debug)]
pub(crate) struct Bundle {
    redactor: Redactor,
    members: Vec<(String, String)>,
    left_out: Vec<(String, String)>,
    size: usize,
}

impl Bundle {
    /// Nothing can get into it but through the redactor.
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self {
            redactor,
            members: Vec::new(),
            left_out: Vec::new(),
            size: 0,
        }
    }

    /// One more member.
    pub(crate) fn add(&mut self, name: &str, text: &str, keep: Keep) {
        // first without secrets, then cut: a cut could hide the form of one
        let clean = self.redactor.text(text);
        let name = self.redactor.text(name);
        let cut = cut(&clean, keep);
        if self.size + cut.len() > LONGEST {
            self.leave_out(
                &name,
                format!("the bundle would be longer than {} MiB", LONGEST >> 20),
            );
            return;
        }
        if cut.len() < clean.len() {
            let part = match keep {
                Keep::Beginning => "end",
                Keep::End => "beginning",
            };
            self.leave_out(
                &name,
                format!(
                    "its {part}: {} of {} bytes are here",
                    cut.len(),
                    clean.len()
                ),
            );
        }
        self.size += cut.len();
        self.members.push((name, cut.to_owned()));
    }

    /// Says what is not in it, and why.
    pub(crate) fn leave_out(&mut self, what: &str, why: impl AsRef<str>) {
        let clean = |text: &str| self.redactor.text(text).replace('\n', " ");
        let entry = (clean(what), clean(why.as_ref()));
        self.left_out.push(entry);
    }

    /// The list of what is inside and what is not.
    pub(crate) fn list(&self, title: &str) -> String {
        let mut text = format!("{title}\n\nInside, with bytes:\n");
        for (name, content) in &self.members {
            text.push_str(&format!("  {:>9}  {name}\n", content.len()));
        }
        text.push_str("\nLeft out:\n");
        for (what, why) in &self.left_out {
            text.push_str(&format!("  {what}: {why}\n"));
        }
        if self.left_out.is_empty() {
            text.push_str("  nothing\n");
        }
        text
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Writes the archive, which must not be there yet, for the owner alone.
    pub(crate) fn write(&self, file: &Path, folder: &str, title: &str, at: i64) -> io::Result<u64> {
        let out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        let written = self.pack(&out, folder, title, at);
        if written.is_err() {
            // half a bundle is worth nothing
            let _ = std::fs::remove_file(file);
        }
        written?;
        Ok(out.metadata()?.len())
    }

    fn pack(&self, out: impl Write, folder: &str, title: &str, at: i64) -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        let list = ("LIST.txt".to_owned(), self.list(title));
        for (name, content) in std::iter::once(&list).chain(&self.members) {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(at.unsigned_abs());
            header.set_cksum();
            archive.append_data(&mut header, format!("{folder}/{name}"), content.as_bytes())?;
        }
        archive.into_inner()?.finish()?.flush()
    }
}

fn cut(text: &str, keep: Keep) -> &str {
    if text.len() <= LONGEST_MEMBER {
        return text;
    }
    match keep {
        Keep::Beginning => {
            let end = (0..=LONGEST_MEMBER)
                .rev()
                .find(|at| text.is_char_boundary(*at));
            &text[..end.unwrap_or(0)]
        }
        Keep::End => {
            let from = text.len() - LONGEST_MEMBER;
            let start = (from..text.len()).find(|at| text.is_char_boundary(*at));
            &text[start.unwrap_or(text.len())..]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_and_said() {
        let mut bundle = Bundle::new(Redactor::default());
        let long = "가".repeat(LONGEST_MEMBER / 3 + 10);
        bundle.add("a.log", &format!("{long}end"), Keep::End);
        bundle.add("b.txt", &format!("begin{long}"), Keep::Beginning);
        assert!(bundle.members[0].1.ends_with("end") && bundle.members[1].1.starts_with("begin"));
        assert!(
            bundle
                .members
                .iter()
                .all(|(_, text)| text.len() <= LONGEST_MEMBER)
        );
        let list = bundle.list("x");
        assert!(
            list.contains("a.log: its beginning") && list.contains("b.txt: its end"),
            "{list}"
        );
        for n in 0..20 {
            bundle.add(&format!("{n}"), &long, Keep::End);
        }
        assert!(bundle.size <= LONGEST && bundle.list("x").contains("longer than 32 MiB"));
    }

    #[test]
    fn the_file_is_the_owners_alone_and_never_another_ones() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("b.tar.gz");
        let mut bundle = Bundle::new(Redactor::default());
        bundle.add("a.txt", "token = \"hunter2\"\n", Keep::End);
        bundle.write(&file, "f", "t", 0).unwrap();
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            bundle.write(&file, "f", "t", 0).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let packed = flate2::read::GzDecoder::new(std::fs::File::open(&file).unwrap());
        let mut archive = tar::Archive::new(packed);
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["f/LIST.txt", "f/a.txt"]);
    }
}
