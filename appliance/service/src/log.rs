//! Where a daemon's log goes: to the journal with its fields when the service manager has connected
//! standard error to it, to standard error as text otherwise.
//!
//! In the journal each field of an event is one of its own, `DTN_` before its name: all that was
//! logged of a slice is `journalctl DTN_SLICE=NAME`.

use std::{
    fmt::{Debug, Write},
    io::{self, IsTerminal},
    os::{fd::AsFd, unix::fs::MetadataExt},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

/// The variable that goes before what is configured.
const VARIABLE: &str = "DTN_LOG";

/// Sets what is logged from now on: a level, or targets with their levels.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Begins the log of the daemon `identifier` with what is configured. Gives how that is changed, unless
/// `DTN_LOG` says what is logged.
pub fn begin(identifier: &'static str, configured: &str) -> Result<Option<SetLog>, String> {
    let by_environment = std::env::var(VARIABLE).ok();
    let wanted = by_environment.as_deref().unwrap_or(configured);
    let filter: Targets = wanted
        .parse()
        .map_err(|e| format!("{VARIABLE} {wanted:?} is not a level or filter: {e}"))?;
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry()
        .with(filter)
        .with(layer(identifier))
        .try_init()
        .map_err(|e| format!("beginning the log: {e}"))?;
    let set = move |wanted: &str| {
        let filter: Targets = wanted.parse().map_err(|e| format!("{wanted:?}: {e}"))?;
        handle.reload(filter).map_err(|e| e.to_string())
    };
    Ok(by_environment.is_none().then(|| Box::new(set) as SetLog))
}

/// The layer that writes the log of the daemon `identifier`.
fn layer<S>(identifier: &'static str) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if in_journal() {
        return Box::new(Journal { identifier });
    }
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        // what cannot be logged is lost; told on standard error it would end the process, when
        // that is a file on a full disk
        .log_internal_errors(false)
        .with_writer(io::stderr);
    Box::new(text)
}

/// Whether standard error is the journal's: the variable alone is inherited by children, whose
/// standard error may be something else.
fn in_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let own = io::stderr()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|stream| std::fs::File::from(stream).metadata());
    own.is_ok_and(|own| names(&named, own.dev(), own.ino()))
}

/// Whether `DEVICE:INODE` is this file.
fn names(stream: &str, device: u64, inode: u64) -> bool {
    let Some((of_device, of_inode)) = stream.split_once(':') else {
        return false;
    };
    of_device.parse() == Ok(device) && of_inode.parse() == Ok(inode)
}

struct Journal {
    identifier: &'static str,
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut entry = Entry::new(self.identifier, event.metadata());
        event.record(&mut entry);
        let lines = entry.lines();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        // nobody could be told that the journal takes nothing
        let _ = systemd::journal::send(&lines);
    }
}

/// One entry: its message, and `NAME=VALUE` for all else.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    fields: Vec<String>,
}

impl Entry {
    fn new(identifier: &str, of: &Metadata<'_>) -> Self {
        // syslog(3); notice and above are what an operator is shown in bold
        let priority = match *of.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut fields = vec![
            format!("PRIORITY={priority}"),
            format!("SYSLOG_IDENTIFIER={identifier}"),
            format!("DTN_TARGET={}", of.target()),
        ];
        if let (Some(file), Some(line)) = (of.file(), of.line()) {
            fields.push(format!("CODE_FILE={file}"));
            fields.push(format!("CODE_LINE={line}"));
        }
        Self {
            message: String::new(),
            fields,
        }
    }
    fn put(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // before the fields, which may have been met already
            self.message.insert_str(0, &format!("{value:?}"));
            return;
        }
        let value = format!("{value:?}");
        // a reader without the fields sees the same as on standard error
        let _ = write!(self.message, " {}={value}", field.name());
        self.fields.push(format!("{}={value}", name(field.name())));
    }
    fn lines(mut self) -> Vec<String> {
        self.fields
            .push(format!("MESSAGE={}", self.message.trim_start()));
        self.fields
    }
}
impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, value);
    }
    /// A text without the quotes of its debug form.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &format_args!("{value}"));
    }
}

/// A field's name as the journal takes it: capitals, digits and underscores, at most 64.
fn name(of: &str) -> String {
    let plain = of.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    });
    "DTN_".chars().chain(plain).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    /// Keeps what would go to the journal.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Vec<String>>>>);
    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            let mut entry = Entry::new("dtnd", event.metadata());
            event.record(&mut entry);
            self.0.lock().unwrap().push(entry.lines());
        }
    }

    #[test]
    fn an_event_is_its_message_and_a_field_for_each_of_its_own() {
        let kept = Kept::default();
        let of = tracing_subscriber::registry().with(kept.clone());
        tracing::subscriber::with_default(of, || {
            tracing::warn!(slice = %"web", step = ?Some(1), peer.domain = "busan", "ends\nsoon");
            tracing::info!("plain");
        });
        let all = kept.0.lock().unwrap();
        let has = |index: usize, line: &str| {
            assert!(all[index].iter().any(|l| l == line), "{line}: {all:?}");
        };
        for line in [
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=dtnd",
            "DTN_SLICE=web",
            "DTN_STEP=Some(1)",
            "DTN_PEER_DOMAIN=busan",
            "MESSAGE=ends\nsoon slice=web step=Some(1) peer.domain=busan",
            "DTN_TARGET=dtn_service::log::tests",
        ] {
            has(0, line);
        }
        has(1, "PRIORITY=6");
        has(1, "MESSAGE=plain");
    }

    #[test]
    fn only_the_stream_that_is_named_is_the_journals() {
        assert!(names("8:31", 8, 31));
        for other in ["8:32", "9:31", "8", "", "a:b"] {
            assert!(!names(other, 8, 31), "{other}");
        }
        assert_eq!(name("peer-domain"), "DTN_PEER_DOMAIN");
        assert_eq!(name(&"x".repeat(100)).len(), 64);
    }
}
