//! The words for an error that a switch sent (§7.4.4).

/// What a switch refused and why, in words, by type and code of its error.
pub fn refusal(kind: u16, code: u16) -> String {
    let (what, codes): (&str, &[&str]) = match kind {
        0 => ("hello failed", &["no version in common", "not allowed"]),
        1 => ("bad request", &BAD_REQUEST),
        2 => ("bad action", &BAD_ACTION),
        3 => ("bad instruction", &BAD_INSTRUCTION),
        4 => ("bad match", &BAD_MATCH),
        5 => ("flow refused", &FLOW),
        6 => ("group refused", &GROUP),
        7 => (
            "port change refused",
            &[
                "no such port",
                "wrong hardware address",
                "bad setting",
                "bad advertisement",
                "not allowed",
            ],
        ),
        8 => (
            "table change refused",
            &["no such table", "bad setting", "not allowed"],
        ),
        9 => (
            "queue request refused",
            &["no such port", "no such queue", "not allowed"],
        ),
        10 => (
            "switch setting refused",
            &["bad flags", "bad length", "not allowed"],
        ),
        11 => (
            "role refused",
            &[
                "generation is stale",
                "role is not supported",
                "no such role",
            ],
        ),
        12 => ("meter refused", &METER),
        13 => (
            "table features refused",
            &[
                "no such table",
                "bad metadata",
                "unknown property",
                "bad length",
                "unsupported property",
                "not allowed",
            ],
        ),
        _ => ("refused", &[]),
    };
    match codes.get(usize::from(code)) {
        Some(why) => format!("{what}: {why}"),
        None => format!("{what}: error type {kind} code {code}"),
    }
}

const BAD_REQUEST: [&str; 14] = [
    "version is not supported",
    "message type is not supported",
    "multipart type is not supported",
    "experimenter is not supported",
    "experimenter type is not supported",
    "not allowed",
    "wrong length",
    "buffer is used already",
    "no such buffer",
    "no such table",
    "this controller has the slave role",
    "no such port",
    "bad packet",
    "multipart request is too long",
];

const BAD_ACTION: [&str; 16] = [
    "unknown action type",
    "wrong length",
    "unknown experimenter",
    "unknown experimenter type",
    "no such output port",
    "bad argument",
    "not allowed",
    "too many actions",
    "no such queue",
    "no such group",
    "does not fit the match, or the field that it needs is not matched",
    "order of actions is not supported",
    "unsupported tag",
    "unsupported set-field type",
    "bad set-field length",
    "bad set-field value",
];

const BAD_INSTRUCTION: [&str; 9] = [
    "unknown instruction",
    "instruction is not supported in this table",
    "no such table",
    "metadata is not supported",
    "metadata mask is not supported",
    "unknown experimenter",
    "unknown experimenter type",
    "wrong length",
    "not allowed",
];

const BAD_MATCH: [&str; 12] = [
    "unsupported match type",
    "wrong length",
    "unsupported tag",
    "unsupported mask on a data link address",
    "unsupported mask on a network address",
    "unsupported combination of wildcards",
    "unsupported field",
    "unsupported value",
    "unsupported mask",
    "a field that another presupposes is missing",
    "field twice",
    "not allowed",
];

const FLOW: [&str; 8] = [
    "unknown reason",
    "table is full",
    "no such table",
    "overlaps a flow of the same priority",
    "not allowed",
    "unsupported timeouts",
    "unknown command",
    "unsupported flags",
];

const GROUP: [&str; 15] = [
    "group exists already",
    "bad group",
    "weights are not supported",
    "no room for more groups",
    "no room for more buckets",
    "chaining groups is not supported",
    "watching is not supported",
    "loop of groups",
    "no such group",
    "group is used by another",
    "unknown group type",
    "unknown command",
    "bad bucket",
    "bad watch",
    "not allowed",
];

const METER: [&str; 12] = [
    "unknown reason",
    "meter exists already",
    "bad meter",
    "no such meter",
    "unknown command",
    "unsupported flags",
    "unsupported rate",
    "unsupported burst size",
    "unsupported band",
    "unsupported band value",
    "no room for more meters",
    "no room for more bands",
];
