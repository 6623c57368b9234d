//! File names as text and back. Linux names are bytes without NUL and slash, JSON wants Unicode:
//! what is UTF-8 stays readable, a backslash is doubled, any other byte is `\xHH`.

use std::fmt::Write as _;

/// A text that is no escaped name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an escaped name: after a backslash comes another one, or x and two digits"
)]
pub struct NameError {
    /// The text as it was given.
    pub text: String,
}

/// The bytes as text; [`unescape`] gives the same bytes again.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            // writing to a String cannot fail
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The bytes that [`escape`] was given.
pub fn unescape(text: &str) -> Result<Vec<u8>, NameError> {
    let malformed = || NameError {
        text: text.to_owned(),
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: u8| (byte as char).to_digit(16).ok_or_else(malformed);
                let value = digit(*high)? * 16 + digit(*low)?;
                bytes.push(u8::try_from(value).map_err(|_| malformed())?);
                tail
            }
            (b'\\', _) => return Err(malformed()),
            (byte, tail) => {
                bytes.push(byte);
                tail
            }
        };
    }
    Ok(bytes)
}

/// Why a path from another machine must not be used below a folder of ours; `None` when it may.
pub fn unsafe_reason(path: &[u8]) -> Option<&'static str> {
    if path.is_empty() {
        return Some("it is empty");
    }
    if path.contains(&0) {
        return Some("it has a NUL byte");
    }
    path.split(|byte| *byte == b'/')
        .find_map(|component| match component {
            b"" => Some("it is absolute or has an empty component"),
            b"." | b".." => Some("it has a component . or .."),
            // NAME_MAX of Linux
            long if long.len() > 255 => Some("a component is longer than 255 bytes"),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readable_names_stay_readable() {
        assert_eq!(escape("a b\n\"ü'#?%".as_bytes()), "a b\n\"ü'#?%");
        assert_eq!(escape(b"\xff\\-"), "\\xff\\\\-");
    }

    #[test]
    fn half_an_escape_is_refused() {
        for bad in ["\\", "\\x", "\\x1", "\\xzz", "\\n", "a\\"] {
            assert!(unescape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for bad in [
            &b""[..],
            b"/etc/passwd",
            b"..",
            b"a/../b",
            b"a//b",
            b"a/",
            b"./a",
            b"a\0b",
        ] {
            assert!(unsafe_reason(bad).is_some(), "{bad:?}");
        }
        for good in [&b"a"[..], b"-a/...", b"a/..b", b" /\n", b"\xff"] {
            assert_eq!(unsafe_reason(good), None, "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&bytes)).unwrap(), bytes);
        }
        #[test]
        fn through_json_too(bytes: Vec<u8>) {
            let line = serde_json::to_string(&escape(&bytes)).unwrap();
            prop_assert!(!line.contains('\n'));
            let text: String = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(unescape(&text).unwrap(), bytes);
        }
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = unescape(&text);
        }
    }
}
