//! Frames of an independent peer, Open vSwitch (see README.md beside this file): read, understood,
//! and written again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod flows;
mod switch;

use dtn_openflow::{Frame, Message, frame_length};
use std::{fs, path::Path};

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToSwitch,
    FromSwitch,
}

/// One frame, and the command that made it.
struct Sent {
    command: String,
    way: Way,
    bytes: Vec<u8>,
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "half a byte: {hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// The frames of one file.
fn recorded(name: &str) -> Vec<Sent> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    let mut command = String::new();
    let mut frames = Vec::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let way = match line.split_at_checked(2) {
            Some(("# ", said)) => {
                said.clone_into(&mut command);
                continue;
            }
            Some(("> ", _)) => Way::ToSwitch,
            Some(("< ", _)) => Way::FromSwitch,
            _ => continue,
        };
        let (command, bytes) = (command.clone(), bytes(&line[2..]));
        frames.push(Sent {
            command,
            way,
            bytes,
        });
    }
    assert!(!frames.is_empty(), "{name}.hex has no frames");
    frames
}

/// What was sent that way by the only command of the file that is this, or has these words.
fn said(name: &str, words: &str, way: Way) -> Vec<Message> {
    let recorded = recorded(name);
    let exact = recorded.iter().any(|sent| sent.command == words);
    let meant = |command: &str| match exact {
        true => command == words,
        false => command.contains(words),
    };
    let frames: Vec<Sent> = recorded
        .into_iter()
        .filter(|sent| meant(&sent.command) && sent.way == way)
        .collect();
    assert!(!frames.is_empty(), "{name}.hex has no command with {words}");
    let command = &frames[0].command;
    assert!(
        frames.iter().all(|sent| sent.command == *command),
        "{words} is said twice"
    );
    let message = |sent: &Sent| Frame::decode(&sent.bytes).unwrap().message;
    frames.iter().map(message).collect()
}

/// The one message of a command that has one.
fn only(name: &str, words: &str, way: Way) -> Message {
    let mut messages = said(name, words, way);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

const FILES: [&str; 8] = [
    "agree", "counted", "flows", "groups", "meters", "packets", "refusals", "switch",
];

#[test]
fn every_file_is_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".hex").map(str::to_owned))
        .collect();
    found.sort();
    assert_eq!(found, FILES);
}

#[test]
fn what_was_read_is_written_the_same() {
    for sent in FILES.into_iter().flat_map(recorded) {
        let Sent { command, bytes, .. } = sent;
        let length = frame_length(bytes[..8].try_into().unwrap());
        assert_eq!(length, Ok(bytes.len()), "{command}");
        let frame = Frame::decode(&bytes).unwrap_or_else(|e| panic!("{command}: {e}"));
        let again = frame.try_encode().unwrap();
        assert_eq!(Frame::decode(&again).as_ref(), Ok(&frame), "{command}");
        if again == bytes {
            continue;
        }
        // only the order of the fields in a match may differ, which a switch is free to choose
        let flows = matches!(bytes[1], 14 | 19);
        assert!(flows, "{command}:\n{bytes:02x?}\n{again:02x?}");
        assert_eq!(sorted(again), sorted(bytes), "{command}: {frame:?}");
    }
}

fn sorted(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.sort_unstable();
    bytes
}

#[test]
fn every_kind_of_message_that_was_said_has_a_name() {
    // questions about the switch's configuration, and an experimenter's message: no use for them
    let nameless = [4, 7, 8];
    for sent in FILES.into_iter().flat_map(recorded) {
        let message = Frame::decode(&sent.bytes).unwrap().message;
        let other = matches!(message, Message::Other { .. });
        assert_eq!(
            other,
            nameless.contains(&sent.bytes[1]),
            "{}: {message:?}",
            sent.command
        );
    }
}

#[test]
fn a_frame_cut_anywhere_is_refused() {
    for sent in FILES.into_iter().flat_map(recorded) {
        for end in 0..sent.bytes.len() {
            let cut = &sent.bytes[..end];
            assert!(
                Frame::decode(cut).is_err(),
                "{}: cut at {end}",
                sent.command
            );
        }
    }
}

#[test]
fn a_structure_cut_anywhere_is_no_panic() {
    for sent in FILES.into_iter().flat_map(recorded) {
        for end in 8..sent.bytes.len() {
            let mut cut = sent.bytes[..end].to_vec();
            let length = u16::try_from(end).unwrap();
            cut[2..4].copy_from_slice(&length.to_be_bytes());
            // some are whole messages with a shorter list; what is read can be written
            if let Ok(frame) = Frame::decode(&cut) {
                frame.try_encode().unwrap();
            }
        }
    }
}
