//! The way from a site to an ONOS of the machine. The lab's namespaces have no link to the machine's
//! network and get none: bytes go through sockets that are files, which are the same in all of them.
//! The janitor, outside, has the far end, and a process at the site the near one.

use super::{OnosOptions, REST_PORT, credentials, folder, given::Given};
use crate::{
    place::{Place, SITES},
    site::management_v4,
    switches::CONTROLLER_PORT,
};
use std::{
    fs, io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    thread,
};

/// The two sockets of a site: for REST, and for switches.
fn sockets(place: &Place, site: usize) -> [PathBuf; 2] {
    ["rest.sock", "openflow.sock"].map(|name| folder(place, site).join(name))
}

/// Opens the far ends for every site that is given an ONOS, and lays its credentials where the site's
/// controller finds them. They end with this process.
pub fn open(options: &OnosOptions, place: &Place) -> io::Result<()> {
    for site in 0..SITES.len() {
        if let Some(given) = options.for_site(site) {
            one(given, place, site)?;
        }
    }
    Ok(())
}

fn one(given: &Given, place: &Place, site: usize) -> io::Result<()> {
    let folder = folder(place, site);
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let secret = fs::read(&given.credentials)?;
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(credentials(place, site))?;
    io::Write::write_all(&mut file, &secret)?;
    let targets = [given.rest(), given.switches()];
    for (socket, target) in sockets(place, site).into_iter().zip(targets) {
        let target = target.map_err(io::Error::other)?;
        let listener = UnixListener::bind(socket)?;
        thread::spawn(move || {
            for inside in listener.incoming().flatten() {
                thread::spawn(move || match TcpStream::connect(target) {
                    Ok(outside) => join(&inside, &outside),
                    // who is inside sees a connection that ends at once
                    Err(error) => tracing::warn!("connecting to ONOS at {target}: {error}"),
                });
            }
        });
    }
    Ok(())
}

/// The near ends, on a site's host, until they are killed.
pub fn serve(place: &Place, site: usize) -> io::Result<()> {
    let addresses = [
        SocketAddr::from(([127, 0, 0, 1], REST_PORT)),
        SocketAddr::from((management_v4(site), CONTROLLER_PORT)),
    ];
    let mut ends = Vec::new();
    for (address, socket) in addresses.into_iter().zip(sockets(place, site)) {
        let listener = TcpListener::bind(address)?;
        ends.push(thread::spawn(move || {
            for inside in listener.incoming().flatten() {
                let socket = socket.clone();
                thread::spawn(move || match UnixStream::connect(&socket) {
                    Ok(outside) => join(&outside, &inside),
                    Err(error) => tracing::warn!("connecting to {}: {error}", socket.display()),
                });
            }
        }));
    }
    for end in ends {
        end.join()
            .map_err(|_| io::Error::other("an end of the doorway has fallen"))?;
    }
    Ok(())
}

/// Carries bytes both ways until both sides have said all. A side that breaks ends the other.
fn join(file: &UnixStream, network: &TcpStream) {
    // whether there is still somebody to tell an end to does not matter: it has ended then
    let end = |how: Shutdown, of: [bool; 2]| {
        let [of_file, of_network] = of;
        if of_file {
            let _ = file.shutdown(how);
        }
        if of_network {
            let _ = network.shutdown(how);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (file, network);
            match io::copy(&mut from, &mut to) {
                Ok(_) => end(Shutdown::Write, [false, true]),
                Err(_) => end(Shutdown::Both, [true, true]),
            }
        });
        let (mut from, mut to) = (network, file);
        match io::copy(&mut from, &mut to) {
            Ok(_) => end(Shutdown::Write, [true, false]),
            Err(_) => end(Shutdown::Both, [true, true]),
        }
    });
}
