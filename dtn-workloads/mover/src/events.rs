//! What the mover says while it works: one JSON object a line on standard output, each with
//! `event` and `t`, seconds since 1970. A listener that went away does not end a transfer.

use serde_json::{Value, json};
use std::{
    io::Write,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds since 1970, as every event carries them.
pub fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Where events go.
pub struct Events(Mutex<Box<dyn Write + Send>>);

impl Events {
    /// To this writer.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(writer)))
    }
    /// Says one thing: `fields` is an object.
    pub fn say(&self, event: &str, fields: Value) {
        let mut line = json!({"event": event, "t": seconds(SystemTime::now())});
        if let (Some(line), Value::Object(fields)) = (line.as_object_mut(), fields) {
            line.extend(fields);
        }
        if let Ok(mut writer) = self.0.lock() {
            // nobody listens any more: the transfer matters more than the telling
            let _ = writeln!(writer, "{line}").and_then(|()| writer.flush());
        }
    }
}
