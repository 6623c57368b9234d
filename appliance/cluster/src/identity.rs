//! Who this cluster is in its domain: one file with key, certificate, authority and the domain
//! controller's address, written at once and readable by its owner alone. In the cluster it is
//! mounted from a Secret, and only read.
//!
//! Joining is safe to repeat: key and request are on disk before the invitation is used, so a lost
//! answer is asked for again with the same request.

use dtn_api::{
    Name, Problem,
    client::{
        Client, ClientError, TlsIdentity,
        enrolment::{KeyAndRequest, enrol, mark},
    },
    domain::{Invitation, InviteKind},
    problem::Kind,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// Version of the file that this build writes; a newer one is refused.
const VERSION: u32 = 1;
/// Largest such file: a key and two certificates are some 3 kB.
const LARGEST: u64 = 64 << 10;

/// Who this cluster is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of the format.
    pub version: u32,
    /// The cluster's name in the domain.
    pub cluster: Name,
    /// The domain.
    pub domain: Name,
    /// Where its controller is reached.
    pub url: String,
    /// The domain's authority, PEM.
    pub ca_pem: String,
    /// SHA-256 of the authority (DER), hexadecimal.
    pub ca_pin: String,
    /// Own certificate, PEM.
    pub certificate_pem: String,
    /// Own key, PEM.
    pub key_pem: String,
    /// What invitation it came by (`enrolment::mark`); empty where an older build wrote this.
    #[serde(default)]
    pub invited_by: String,
}
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Identity({} in {}, key withheld)",
            self.cluster, self.domain
        )
    }
}
impl Identity {
    /// A client of the domain's controller that comes as this cluster. `deadline` is for a call.
    pub fn client(&self, deadline: Duration) -> Result<Client, ClientError> {
        let own = (self.certificate_pem.clone(), self.key_pem.clone());
        let tls = TlsIdentity {
            ca_pem: self.ca_pem.clone(),
            own: Some(own),
        };
        Client::tls(&self.url, &tls, deadline)
    }
}

/// What was made for an invitation that has not been answered yet.
#[derive(Serialize, Deserialize)]
struct Pending {
    version: u32,
    invitation: Invitation,
    key_pem: String,
    csr_pem: String,
}

/// The usual place of the identity below a root.
pub fn file_below(root: &Path) -> PathBuf {
    root.join(dtn_api::STATE_DIR.trim_start_matches('/'))
        .join("cluster/identity.json")
}

/// The identity in a file, if there is one.
pub fn load(file: &Path) -> Result<Option<Identity>, Problem> {
    let identity: Option<Identity> = read(file)?;
    match identity {
        Some(identity) if identity.version > VERSION => Err(Problem::new(
            Kind::Internal,
            format!(
                "{}: version {} is newer than this build reads: use the newer dtn-cluster, or join \
                 the domain again",
                file.display(),
                identity.version
            ),
        )),
        other => Ok(other),
    }
}

/// Turns an invitation into an identity in this file, in the place of the one that it had in the same
/// domain. The same invitation twice is success.
pub async fn join(
    file: &Path,
    invitation: Invitation,
    now: Timestamp,
) -> Result<Identity, Problem> {
    let invited_by = mark(&invitation);
    if let Some(identity) = load(file)? {
        if identity.invited_by == invited_by {
            return Ok(identity);
        }
        // invited anew by its own domain: what it has may be revoked, or of keys that are gone
        if (&identity.domain, &identity.cluster) != (&invitation.domain, &invitation.name) {
            return Err(Problem::new(
                Kind::StateConflict,
                format!(
                    "{} is cluster {} in domain {} already: give another --root, or remove it",
                    file.display(),
                    identity.cluster,
                    identity.domain
                ),
            ));
        }
    }
    check(&invitation, now)?;
    let waiting = file.with_file_name("pending.json");
    let pending = pending(&waiting, invitation)?;
    let enrolled = enrol(&pending.invitation, &pending.csr_pem).await?;
    let identity = Identity {
        version: VERSION,
        cluster: enrolled.name,
        domain: enrolled.domain,
        url: pending.invitation.url,
        ca_pem: enrolled.ca_pem,
        ca_pin: pending.invitation.ca_pin,
        certificate_pem: enrolled.certificate_pem,
        key_pem: pending.key_pem,
        invited_by,
    };
    write(file, &identity)?;
    match fs::remove_file(&waiting) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(storage("removing", &waiting)(e)),
        _ => Ok(identity),
    }
}

/// All that can be known to be wrong before the controller is asked.
fn check(invitation: &Invitation, now: Timestamp) -> Result<(), Problem> {
    let mut problem = Problem::new(Kind::InvalidRequest, "the invitation cannot be used");
    if invitation.kind != InviteKind::Cluster {
        problem = problem.at(
            "/invitation/kind",
            "it does not invite a cluster: clusters join with what dtnctl cluster invite printed",
        );
    }
    if invitation.expires_at <= now {
        problem = problem.at(
            "/invitation/expires_at",
            format!("it expired at {}: ask for a new one", invitation.expires_at),
        );
    }
    if !invitation.url.starts_with("https://") {
        problem = problem.at("/invitation/url", "must start with https://");
    }
    match problem.errors.is_empty() {
        true => Ok(()),
        false => Err(problem),
    }
}

/// The key and request for this invitation: those on disk, or new ones that are on disk now.
fn pending(file: &Path, invitation: Invitation) -> Result<Pending, Problem> {
    // what cannot be read was for another invitation, or for nobody
    let found = read::<Pending>(file).ok().flatten();
    let found = found.filter(|p| p.version <= VERSION && p.invitation == invitation);
    if let Some(pending) = found {
        return Ok(pending);
    }
    let made = KeyAndRequest::new(&invitation)?;
    let pending = Pending {
        version: VERSION,
        invitation,
        key_pem: made.key_pem,
        csr_pem: made.csr_pem,
    };
    write(file, &pending)?;
    Ok(pending)
}

fn storage<'a>(doing: &'a str, file: &'a Path) -> impl Fn(io::Error) -> Problem + use<'a> {
    move |e| Problem::new(Kind::Internal, format!("{doing} {}: {e}", file.display()))
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, Problem> {
    let failed = storage("reading", file);
    let mut bytes = Vec::new();
    match File::open(file) {
        Ok(open) => open
            .take(LARGEST)
            .read_to_end(&mut bytes)
            .map_err(&failed)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Problem::new(
            Kind::Internal,
            format!(
                "{}: {e}: remove it and join the domain again",
                file.display()
            ),
        )
    })
}

/// Whole or not at all, durable, and for the owner alone.
fn write(file: &Path, value: &impl Serialize) -> Result<(), Problem> {
    let failed = storage("writing", file);
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| failed(e.into()))?;
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(&failed)?;
    let temporary = file.with_extension("new");
    // a left-over may have another mode
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.create_new(true).write(true).mode(0o600);
    let mut open = options.open(&temporary).map_err(&failed)?;
    open.write_all(&bytes).map_err(&failed)?;
    open.sync_all().map_err(&failed)?;
    fs::rename(&temporary, file).map_err(&failed)?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(&failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn invitation() -> Invitation {
        Invitation {
            kind: InviteKind::Cluster,
            domain: "daejeon".parse().unwrap(),
            name: "k8s".parse().unwrap(),
            url: "https://192.0.2.1:7443".into(),
            ca_pin: "00".repeat(32),
            secret: "s".into(),
            expires_at: "2027-01-02T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn all_that_is_wrong_with_an_invitation_is_said_at_once() {
        let bad = Invitation {
            kind: InviteKind::Host,
            url: "http://x".into(),
            ..invitation()
        };
        let problem = check(&bad, "2027-01-03T00:00:00Z".parse().unwrap()).unwrap_err();
        assert_eq!(problem.errors.len(), 3, "{problem}");
        check(&invitation(), "2027-01-01T00:00:00Z".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_repeated_join_uses_the_same_request_and_the_file_is_its_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/pending.json");
        let first = pending(&file, invitation()).unwrap();
        assert_eq!(pending(&file, invitation()).unwrap().csr_pem, first.csr_pem);
        let other = Invitation {
            secret: "t".into(),
            ..invitation()
        };
        assert_ne!(pending(&file, other).unwrap().csr_pem, first.csr_pem);
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_newer_or_broken_file_is_refused_and_none_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = file_below(folder.path());
        assert!(load(&file).unwrap().is_none());
        let newer = Identity {
            version: VERSION + 1,
            cluster: "a".parse().unwrap(),
            domain: "b".parse().unwrap(),
            url: String::new(),
            ca_pem: String::new(),
            ca_pin: String::new(),
            certificate_pem: String::new(),
            key_pem: "secret".into(),
            invited_by: String::new(),
        };
        write(&file, &newer).unwrap();
        assert!(load(&file).unwrap_err().detail.contains("newer"));
        assert!(!format!("{newer:?}").contains("secret"));
        fs::write(&file, "{").unwrap();
        assert!(
            load(&file)
                .unwrap_err()
                .detail
                .contains("join the domain again")
        );
    }
}
