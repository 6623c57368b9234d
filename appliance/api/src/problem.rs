//! How both daemons say no: problem documents (RFC 9457), all problems of a request in one answer.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Prefix of every problem's `type`; the rest is the [`Kind`] in kebab case.
pub const TYPE_PREFIX: &str = "urn:dtn:problem:";

/// What kind of problem it is. The kind decides the HTTP status and whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub enum Kind {
    /// The body, a path or a query value is malformed.
    InvalidRequest,
    /// No credential, or one that is not known.
    Unauthenticated,
    /// The credential is known and may not do this.
    Forbidden,
    /// No such resource.
    NotFound,
    /// A link on the way has less left than was asked for.
    InsufficientBandwidth,
    /// The members cannot be connected.
    NoPath,
    /// The resource is in a state that does not allow this.
    StateConflict,
    /// The hold ran out before it was committed.
    HoldExpired,
    /// No address is left.
    PoolExhausted,
    /// The address is seen on another host.
    AddressInConflict,
    /// The name is taken.
    NameTaken,
    /// The same request is still being worked on.
    RequestInProgress,
    /// `If-Match` names an older version.
    VersionMismatch,
    /// A field of the contract that this build does not carry out, named in `errors`.
    NotBuilt,
    /// The same idempotency key came with another body.
    IdempotencyKeyReused,
    /// A quality of service that this fabric cannot enforce.
    UnenforceableQos,
    /// `If-Match` or `Idempotency-Key` is missing.
    PreconditionRequired,
    /// Too much at once; try later.
    RateLimited,
    /// A fault of our own; the log has the cause.
    Internal,
    /// What enforces the slice answered with an error.
    BackendError,
    /// What enforces the slice, or the controller, could not be reached.
    BackendUnavailable,
    /// The other domain did not answer in time.
    PeerTimeout,
}

impl Kind {
    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::InsufficientBandwidth
            | Self::NoPath
            | Self::StateConflict
            | Self::HoldExpired
            | Self::PoolExhausted
            | Self::AddressInConflict
            | Self::NameTaken
            | Self::RequestInProgress => 409,
            Self::VersionMismatch => 412,
            Self::NotBuilt | Self::IdempotencyKeyReused | Self::UnenforceableQos => 422,
            Self::PreconditionRequired => 428,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::BackendError => 502,
            Self::BackendUnavailable => 503,
            Self::PeerTimeout => 504,
        }
    }
    /// Whether the same request can succeed later without a change.
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::PoolExhausted
                | Self::RequestInProgress
                | Self::RateLimited
                | Self::Internal
                | Self::BackendUnavailable
                | Self::PeerTimeout
        )
    }
    /// One short sentence, the same for every problem of this kind.
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "the request is malformed",
            Self::Unauthenticated => "no valid credential",
            Self::Forbidden => "not allowed",
            Self::NotFound => "no such resource",
            Self::InsufficientBandwidth => "not enough reservable bandwidth",
            Self::NoPath => "no path between the members",
            Self::StateConflict => "not possible in this state",
            Self::HoldExpired => "the hold has expired",
            Self::PoolExhausted => "no address is left",
            Self::AddressInConflict => "the address is in use",
            Self::NameTaken => "the name is taken",
            Self::RequestInProgress => "the same request is in progress",
            Self::VersionMismatch => "the resource has changed",
            Self::NotBuilt => "a field is not supported by this build",
            Self::IdempotencyKeyReused => "the idempotency key was used with another body",
            Self::UnenforceableQos => "this quality of service cannot be enforced here",
            Self::PreconditionRequired => "a precondition header is missing",
            Self::RateLimited => "too many requests",
            Self::Internal => "internal fault",
            Self::BackendError => "the fabric answered with an error",
            Self::BackendUnavailable => "a needed service is not reachable",
            Self::PeerTimeout => "the other domain did not answer",
        }
    }
}

/// One fault among several, with the place it is at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the request body, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pointer: String,
    /// What is wrong and how to mend it.
    pub detail: String,
    /// The link that has too little, as `site-switch>wan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// What that link still admits over the whole window, in bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bps: Option<u64>,
    /// What was asked of it, in bits per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_bps: Option<u64>,
}

/// A problem document: the body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:dtn:problem:` and the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short text, the same for every problem of the kind.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened to what, with the values and the remedy.
    pub detail: String,
    /// The request's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Stands in the log beside the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Whether the same request can succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// Every fault that was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

impl Problem {
    /// A problem of this kind with its detail: what was being done to what, and the remedy.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let name = serde_json::to_value(kind).ok();
        let name = name.as_ref().and_then(|v| v.as_str()).unwrap_or("internal");
        Self {
            kind: format!("{TYPE_PREFIX}{name}"),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            instance: None,
            request_id: None,
            retryable: kind.retryable(),
            errors: Vec::new(),
        }
    }
    /// The same with one more fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.errors.push(fault);
        self
    }
    /// The same with a fault at this JSON pointer.
    #[must_use]
    pub fn at(self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.with(Fault {
            pointer: pointer.into(),
            detail: detail.into(),
            ..Fault::default()
        })
    }
    /// Its kind, where this build knows it.
    pub fn known_kind(&self) -> Option<Kind> {
        let name = self.kind.strip_prefix(TYPE_PREFIX)?;
        serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
    }
    /// Whether it is of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.known_kind() == Some(kind)
    }
    /// The least that any named link still admits, in bits per second: the number that would fit.
    pub fn available_bps(&self) -> Option<u64> {
        self.errors
            .iter()
            .filter_map(|fault| fault.available_bps)
            .min()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        for fault in &self.errors {
            f.write_str("\n  ")?;
            if !fault.pointer.is_empty() {
                write!(f, "{}: ", fault.pointer)?;
            }
            f.write_str(&fault.detail)?;
        }
        Ok(())
    }
}
impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_the_document_of_rfc_9457() {
        let problem = Problem::new(Kind::InsufficientBandwidth, "wan has 0.4 Gb/s left")
            .with(Fault {
                available_bps: Some(400),
                ..Fault::default()
            })
            .at("/qos/rate_bps", "too much");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:dtn:problem:insufficient-bandwidth");
        assert_eq!(json["status"], 409);
        assert_eq!(json["errors"][1]["pointer"], "/qos/rate_bps");
        assert!(problem.is(Kind::InsufficientBandwidth));
        assert_eq!(problem.available_bps(), Some(400));
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }
}
