//! How a plugin says no: the specification's codes, one JSON object on standard output.

use serde::Serialize;

/// Version of the specification that an error object names when the configuration's is not known.
const NEWEST: &str = "1.1.0";

/// The specification's error codes, and our own from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version is not spoken.
    IncompatibleVersion = 1,
    /// A field has a value that is not supported.
    UnsupportedField = 2,
    /// The container is not known or has gone.
    UnknownContainer = 3,
    /// Environment variables are missing or wrong.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is no JSON, or of another shape.
    Decode = 6,
    /// The configuration is wrong.
    InvalidConfig = 7,
    /// The sandbox is no network namespace, or the caller's own.
    InvalidNetns = 8,
    /// It can succeed later.
    TryAgainLater = 11,
    /// ADD could not be served.
    NotAvailable = 50,
    /// ADD could not be served, and attached containers may be cut off.
    LimitedConnectivity = 51,
    /// This very interface is attached to this very sandbox already.
    AlreadyAttached = 100,
    /// The NIC belongs to another pod.
    NicInUse = 101,
    /// What was set could not be read back, or differs.
    NotAsWanted = 102,
    /// The pod has another interface of that name.
    NameTaken = 103,
    /// Anything else.
    Internal = 999,
}

/// An error that goes to the runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", if details.is_empty() { String::new() } else { format!(": {details}") })]
pub struct CniError {
    /// Which.
    pub code: Code,
    /// What was being done to what.
    pub message: String,
    /// Why, and the remedy.
    pub details: String,
}

impl CniError {
    /// An error with its ground.
    pub fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: details.into(),
        }
    }
    /// An internal error of some step.
    pub fn internal(message: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::new(Code::Internal, message, cause.to_string())
    }
    /// The specification's error object. containerd takes any text with "not found" in it for a
    /// success of DEL, so those words never leave here.
    pub fn to_json(&self, version: Option<&str>) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            #[serde(rename = "cniVersion")]
            cni_version: &'a str,
            code: u32,
            msg: String,
            #[serde(skip_serializing_if = "String::is_empty")]
            details: String,
        }
        let plain = |text: &str| text.replace("not found", "absent");
        let object = Object {
            cni_version: version.unwrap_or(NEWEST),
            code: self.code as u32,
            msg: plain(&self.message),
            details: plain(&self.details),
        };
        serde_json::to_string_pretty(&object)
            .unwrap_or_else(|_| format!("{{\"code\":{}}}", object.code))
    }
}

impl From<dtn_link::Error> for CniError {
    fn from(error: dtn_link::Error) -> Self {
        let code = match &error {
            dtn_link::Error::Io { .. } => Code::Io,
            _ => Code::Internal,
        };
        Self::new(code, "changing the network failed", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_never_reads_as_success() {
        let error = CniError::new(Code::TryAgainLater, "asking dtnd", "socket not found");
        let json: serde_json::Value = serde_json::from_str(&error.to_json(Some("1.0.0"))).unwrap();
        assert_eq!(
            (json["code"].as_u64(), json["cniVersion"].as_str()),
            (Some(11), Some("1.0.0"))
        );
        assert_eq!(json["details"], "socket absent");
    }
}
