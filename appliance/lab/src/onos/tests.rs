//! What may be given, what is refused, and that bytes go through a doorway.

#![allow(clippy::unwrap_used, reason = "a test fails with what it could not do")]

use super::{given::Given, *};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

fn given(url: &str, credentials: &Path) -> Given {
    Given {
        url: url.into(),
        openflow: 6653,
        credentials: credentials.into(),
    }
}

#[test]
fn only_an_onos_of_this_machine_is_taken() {
    let rest = |url: &str| given(url, Path::new("/c")).rest();
    for (url, address) in [
        ("http://127.0.0.1:8181", "127.0.0.1:8181"),
        ("http://localhost:8282/", "127.0.0.1:8282"),
        ("http://[::1]:8181", "[::1]:8181"),
        ("http://127.0.0.2", "127.0.0.2:8181"),
    ] {
        assert_eq!(rest(url).unwrap().to_string(), address, "{url}");
    }
    for url in [
        "https://127.0.0.1:8181",
        "http://192.0.2.1:8181",
        "http://onos.example.org:8181",
        "127.0.0.1:8181",
        "http://a:b@127.0.0.1:8181",
    ] {
        let said = rest(url).unwrap_err();
        assert!(said.contains("ssh -L"), "{url}: {said}");
    }
}

#[test]
fn each_site_has_its_own_or_both_have_the_one() {
    let one = given("http://127.0.0.1:8181", Path::new("/one"));
    let other = given("http://127.0.0.1:8282", Path::new("/other"));
    let mut options = OnosOptions::default();
    assert_eq!(options.for_site(1), None);
    assert!(options.label().contains("test southbound"));
    options.given = vec![one.clone()];
    assert_eq!(options.for_site(1), Some(&one));
    options.given.push(other.clone());
    assert_eq!(options.for_site(1), Some(&other));
    assert!(options.label().contains("8181") && options.label().contains("8282"));
}

/// An ONOS in so far as it answers with this status.
fn answering(status: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut heard = [0; 4096];
        let n = stream.read(&mut heard).unwrap();
        // at once: who asks reads no more than the head
        let answer = format!("HTTP/1.1 {status} x\r\n\r\n{:100}", "");
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&heard[..n]).into_owned()
    });
    (url, heard)
}

#[test]
fn all_that_is_wrong_with_what_is_given_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    fs::write(&file, "onos:secret\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    // tcpmux, which nobody serves any more
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let mut one = given("https://192.0.2.1", &file);
    let told = given::problems(&OnosOptions {
        core: PathBuf::new(),
        given: vec![one.clone()],
    });
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("chmod 0600") && told[1].contains("ssh -L"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    one.url = format!("http://{free}");
    one.openflow = free.port();
    let told = given::problems(&OnosOptions {
        core: PathBuf::new(),
        given: vec![one.clone()],
    });
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("no answer") && told[1].contains("nobody hears switches"));

    let switches = TcpListener::bind("127.0.0.1:0").unwrap();
    one.openflow = switches.local_addr().unwrap().port();
    for (status, word) in [
        ("401", "is wrong"),
        ("503", "starting"),
        ("404", "is it an ONOS"),
    ] {
        let (url, heard) = answering(status);
        one.url = url;
        let told = given::problems(&OnosOptions {
            core: PathBuf::new(),
            given: vec![one.clone()],
        });
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(
            told[0].contains(word) && !told[0].contains("secret"),
            "{told:#?}"
        );
        let heard = heard.join().unwrap();
        // onos:secret
        assert!(heard.contains("Basic b25vczpzZWNyZXQ="), "{heard}");
    }
    let (url, _heard) = answering("200");
    one.url = url;
    let options = OnosOptions {
        core: PathBuf::new(),
        given: vec![one],
    };
    assert_eq!(given::problems(&options), Vec::<String>::new());
}

#[test]
fn a_doorway_carries_bytes_both_ways_and_the_credentials_to_one_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (state, file) = (dir.path().join("s"), dir.path().join("credentials"));
    fs::write(&file, "onos:secret\n").unwrap();
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = far.local_addr().unwrap();
    let mut one = given(&format!("http://{at}"), &file);
    one.openflow = at.port();
    let place = Place::new(&state);
    let options = OnosOptions {
        core: PathBuf::new(),
        given: vec![one],
    };
    doorway::open(&options, &place).unwrap();
    let laid = credentials(&place, 1);
    assert_eq!(fs::read_to_string(&laid).unwrap(), "onos:secret\n");
    assert_eq!(
        fs::metadata(&laid).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for socket in ["rest.sock", "openflow.sock"] {
        let mut near = UnixStream::connect(folder(&place, 1).join(socket)).unwrap();
        near.write_all(b"hello").unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut end, _): (TcpStream, _) = far.accept().unwrap();
        let mut heard = String::new();
        end.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        end.write_all(b"and good bye").unwrap();
        drop(end);
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "and good bye");
    }
}
