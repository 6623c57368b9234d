//! A DOUBLE of the two daemons: it listens on the sockets of a root of its own, answers what the
//! test told it to, and keeps what it was asked. It decides nothing, so what is tested with it is
//! `dtnctl` and the contract's types alone.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// One call that was made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// `GET /dtn/v1/status`.
    pub(crate) line: String,
    /// Body, `null` without one.
    pub(crate) body: Value,
}

/// An answer: HTTP status and body.
pub(crate) type Answer = (u16, Value);

/// What is answered to a line, which was asked so often before.
type Answers = dyn Fn(&str, usize) -> Option<Answer> + Send + Sync;

/// What the listeners of a double share.
struct Script {
    answers: Box<Answers>,
    calls: Mutex<Vec<Call>>,
    over: AtomicBool,
}

/// The double, with its root.
pub(crate) struct Double {
    root: tempfile::TempDir,
    script: Arc<Script>,
    listeners: Vec<(PathBuf, JoinHandle<()>)>,
}

impl Double {
    /// Listens on both sockets of a new root. What `answers` does not know is a 404 problem.
    pub(crate) fn new(
        answers: impl Fn(&str, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let root = tempfile::tempdir().expect("a folder for the double");
        let script = Arc::new(Script {
            answers: Box::new(answers),
            calls: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let mut listeners = Vec::new();
        for socket in [dtn_api::DTND_SOCKET, dtn_api::VDND_SOCKET] {
            let path = root.path().join(socket.trim_start_matches('/'));
            let folder = path.parent().expect("a socket lies in a folder");
            std::fs::create_dir_all(folder).expect("the folder of the sockets");
            let listener = UnixListener::bind(&path).expect("a socket of the double");
            let script = script.clone();
            let thread = std::thread::spawn(move || script.serve(&listener));
            listeners.push((path, thread));
        }
        Self {
            root,
            script,
            listeners,
        }
    }
    /// A double that answers one line in one way.
    pub(crate) fn one(line: &'static str, status: u16, body: Value) -> Self {
        Self::new(move |asked, _| (asked == line).then(|| (status, body.clone())))
    }
    /// Its root.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
    /// What it was asked so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.script.calls.lock().expect("no call panicked").clone()
    }
    /// Runs `dtnctl --root ROOT` with these words; `ROOT` stands for the root in what it says.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, "")
    }
    /// The same with something on stdin.
    pub(crate) fn run_with(&self, words: &[&str], stdin: &str) -> Ran {
        let root = self.root.path().to_str().expect("a root that is text");
        let all: Vec<&str> = ["--root", root].iter().chain(words).copied().collect();
        let ran = run(&all, stdin);
        Ran {
            out: ran.out.replace(root, "ROOT"),
            err: ran.err.replace(root, "ROOT"),
            code: ran.code,
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.script.over.store(true, Ordering::SeqCst);
        for (path, thread) in self.listeners.drain(..) {
            drop(UnixStream::connect(&path));
            let _ = thread.join();
        }
    }
}

impl Script {
    fn serve(&self, listener: &UnixListener) {
        while let Ok((stream, _)) = listener.accept() {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            // a caller that leaves in the middle is its own test's business
            let _ = self.answer(stream);
        }
    }
    /// One request of HTTP/1.1; none when the socket was only tried.
    fn answer(&self, stream: UnixStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let line = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let before = {
            let mut calls = self.calls.lock().expect("no call panicked");
            let before = calls.iter().filter(|call| call.line == line).count();
            let call = Call {
                line: line.clone(),
                body,
            };
            calls.push(call);
            before
        };
        let (status, body) =
            (self.answers)(&line, before).unwrap_or_else(|| problem("not-found", 404, &line));
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        )
    }
}

/// A problem document.
pub(crate) fn problem(kind: &str, status: u16, detail: &str) -> Answer {
    let document = json!({
        "type": format!("urn:dtn:problem:{kind}"), "title": kind, "status": status,
        "detail": detail, "retryable": false,
    });
    (status, document)
}

/// What a run of `dtnctl` left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    /// stdout.
    pub(crate) out: String,
    /// stderr.
    pub(crate) err: String,
    /// Exit code.
    pub(crate) code: i32,
}

impl Ran {
    /// stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
    /// All of it, for a golden file.
    pub(crate) fn all(&self) -> String {
        format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.out, self.err
        )
    }
}

/// Runs `dtnctl` with these words.
pub(crate) fn run(words: &[&str], stdin: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dtnctl"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dtnctl starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    // a verb that does not read stdin may be gone already
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("dtnctl ends");
    Ran {
        out: String::from_utf8(output.stdout).expect("stdout is text"),
        err: String::from_utf8(output.stderr).expect("stderr is text"),
        code: output.status.code().expect("dtnctl is not killed"),
    }
}
