//! How `dtnctl` fails: what is said on stderr, the next step, and the exit code.
//!
//! One table of exit codes for the whole program; `--help` prints it and a test holds both equal.

use dtn_api::client::ClientError;

/// Exit codes and what they mean, in the order of `--help`.
pub(crate) const EXIT_CODES: [(u8, &str); 6] = [
    (0, "done"),
    (
        1,
        "the operation failed; the message says why and what would help (deploy --diff, config \
         diff: something would change; doctor: there is an alarm)",
    ),
    (
        2,
        "the command line is wrong (deploy --diff, config diff: it could not be compared)",
    ),
    (
        3,
        "access explain: the packet is dropped; the rule that decides is named",
    ),
    (
        69,
        "the daemon is not reachable; the message says how to start it",
    ),
    (78, "the configuration is invalid; every problem is listed"),
];

/// Why a verb did not do what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was tried and did not work, or the answer is no.
    Failed {
        /// The chain of causes.
        cause: anyhow::Error,
        /// The next step, in words.
        next: Option<String>,
        /// What there is to show all the same, for stdout.
        out: String,
    },
    /// The command line asks for something that does not exist.
    Usage(String),
    /// A packet that was asked about does not pass.
    Dropped {
        /// The explanation, for stdout.
        out: String,
        /// Why, in one line.
        why: String,
        /// Where to look.
        next: String,
    },
    /// A comparison that was asked for found differences; as diff(1) ends.
    Differs {
        /// They, for stdout.
        out: String,
    },
    /// A comparison that was asked for could not be made; as diff(1) ends.
    Undecided(Box<Failure>),
    /// Nobody answers on the socket.
    Unreachable {
        /// What was tried and what came of it.
        what: String,
        /// How to start it.
        next: String,
    },
    /// Configuration that a daemon would refuse.
    Invalid {
        /// Every problem, for stdout.
        out: String,
        /// How much is wrong, in one line.
        summary: String,
    },
}

/// What a verb returns.
pub(crate) type Outcome = Result<Done, Failure>;

/// What a verb has to say when it is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// For stdout, with its last newline.
    pub(crate) out: String,
    /// The next step, for stderr.
    pub(crate) next: Option<String>,
}

impl Done {
    /// Text for stdout and no more to say.
    pub(crate) fn text(out: impl Into<String>) -> Self {
        Self {
            out: out.into(),
            next: None,
        }
    }
    /// The same with the next step.
    #[must_use]
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl Failure {
    /// A failure without a cause below it.
    pub(crate) fn because(text: impl Into<String>) -> Self {
        anyhow::anyhow!(text.into()).into()
    }
    /// The same with the next step, where the failure does not have one of its own.
    #[must_use]
    pub(crate) fn or_next(mut self, step: impl Into<String>) -> Self {
        if let Self::Failed { next, .. } = &mut self {
            next.get_or_insert_with(|| step.into());
        }
        self
    }
    /// The same with something to show on stdout.
    #[must_use]
    pub(crate) fn showing(mut self, text: impl Into<String>) -> Self {
        if let Self::Failed { out, .. } | Self::Invalid { out, .. } = &mut self {
            *out = text.into();
        }
        self
    }
    /// The same where two things were to be compared: 1 means there that they differ.
    pub(crate) fn in_a_comparison(self) -> Self {
        match self {
            Self::Failed { .. } => Self::Undecided(Box::new(self)),
            other => other,
        }
    }
    /// What stdout gets.
    pub(crate) fn out(&self) -> &str {
        match self {
            Self::Failed { out, .. }
            | Self::Dropped { out, .. }
            | Self::Differs { out }
            | Self::Invalid { out, .. } => out,
            Self::Undecided(failure) => failure.out(),
            Self::Usage(_) | Self::Unreachable { .. } => "",
        }
    }
    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed { .. } | Self::Differs { .. } => 1,
            Self::Usage(_) | Self::Undecided(_) => 2,
            Self::Dropped { .. } => 3,
            Self::Unreachable { .. } => 69,
            Self::Invalid { .. } => 78,
        }
    }
    /// What stderr gets: the chain once, then the next step.
    pub(crate) fn message(&self) -> String {
        let (text, next) = match self {
            Self::Failed { cause, next, .. } => (format!("{cause:#}"), next.clone()),
            Self::Usage(text) => (
                text.clone(),
                Some("dtnctl --help lists the verbs, dtnctl VERB --help the options".to_owned()),
            ),
            Self::Dropped { why, next, .. } => (why.clone(), Some(next.clone())),
            Self::Undecided(failure) => return failure.message(),
            // the differences say it all
            Self::Differs { .. } => return String::new(),
            Self::Unreachable { what, next } => (what.clone(), Some(next.clone())),
            Self::Invalid { summary, .. } => (summary.clone(), None),
        };
        let mut message = format!("dtnctl: {text}\n");
        if let Some(next) = next {
            message.push_str(&format!("next: {next}\n"));
        }
        message
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        Self::Failed {
            cause,
            next: None,
            out: String::new(),
        }
    }
}

/// The failure of a call that was made to do something, named by `doing`.
pub(crate) fn while_doing(doing: impl Into<String>, error: ClientError) -> Failure {
    let doing = doing.into();
    match error {
        ClientError::Unreachable { .. } => Failure::Unreachable {
            what: format!("{doing}: {error}"),
            next: "the daemon stopped or is too slow: look at its log, then try again; every verb \
                   may be repeated"
                .into(),
        },
        ClientError::Refused(problem) => {
            let next = problem
                .retryable
                .then(|| "the same command can succeed later: try it again".to_owned());
            let text = format!("{doing}: {}", problem.to_string().trim_end());
            Failure::Failed {
                cause: anyhow::anyhow!(text),
                next,
                out: String::new(),
            }
        }
        other => anyhow::Error::new(other).context(doing).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtn_api::problem::{Kind, Problem};

    #[test]
    fn every_failure_has_a_code_of_the_table() {
        let all = [
            Failure::because("x"),
            Failure::Usage("x".into()),
            Failure::Dropped {
                out: String::new(),
                why: "x".into(),
                next: "y".into(),
            },
            Failure::Unreachable {
                what: "x".into(),
                next: "y".into(),
            },
            Failure::Invalid {
                out: String::new(),
                summary: "x".into(),
            },
        ];
        let mut codes: Vec<u8> = all.iter().map(Failure::code).collect();
        codes.insert(0, 0);
        assert_eq!(codes, EXIT_CODES.map(|(code, _)| code));
    }

    #[test]
    fn comparisons_end_as_those_of_other_tools() {
        let same = Failure::because("x").in_a_comparison();
        assert_eq!((same.code(), same.message().as_str()), (2, "dtnctl: x\n"));
        let differs = Failure::Differs { out: "a\n".into() };
        let differs = differs.in_a_comparison();
        assert_eq!(
            (differs.code(), differs.out(), differs.message().as_str()),
            (1, "a\n", "")
        );
    }

    #[test]
    fn a_chain_is_printed_once_and_the_next_step_after_it() {
        let cause = anyhow::anyhow!("permission denied")
            .context("reading /etc/dtn/appliance.toml")
            .context("checking the configuration");
        let failure = Failure::from(cause).or_next("become root");
        assert_eq!(
            failure.message(),
            "dtnctl: checking the configuration: reading /etc/dtn/appliance.toml: permission denied\n\
             next: become root\n"
        );
    }

    #[test]
    fn a_refusal_lists_every_fault_with_its_place() {
        let problem = Problem::new(Kind::InvalidRequest, "the request has 2 faults")
            .at("/rate", "must be above 0")
            .at("/duration", "must be above 0");
        let failure = while_doing("reserving slice a", ClientError::Refused(Box::new(problem)));
        assert_eq!(
            failure.message(),
            "dtnctl: reserving slice a: the request has 2 faults\n  \
             /rate: must be above 0\n  /duration: must be above 0\n"
        );
        assert_eq!(failure.code(), 1);
    }
}
