//! The way to the domain's controller: one typed method per call of the VDN contract that a host
//! makes, and the last answers as a view for those who cannot wait.
//!
//! **Offline.** A host that has not joined, or whose controller does not answer, keeps what it has:
//! calls fail with `backend-unavailable` and say why, the view keeps the last slices with the time
//! they were read at, traffic goes on, leases are renewed when the controller is back, releases are
//! queued. Nothing is taken away because someone was silent.

use crate::{Config, Places, identity, identity::Identity};
use dtn_api::{
    HostId, Name, Problem, VDN_BASE,
    client::{Client, ClientError, TlsIdentity},
    domain::Enrolled,
    gateway::{AccessRules, Gateway, GatewayReport, GatewaySpec, StandingRules},
    host::{Enforcement, Host, HostSpec},
    lease::{Lease, LeaseRequest, RenewBatch, RenewResult},
    node::Node,
    problem::Kind,
    slice::{Availability, AvailabilityQuery, Extend, List, Member, Role, Slice, SliceSpec},
    stitch::{Stitch, StitchSpec},
};
use http::Method;
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::watch;
use uuid::Uuid;

/// Longest time for one call: a stitch asks the other domain too, which has 10 s.
const DEADLINE: Duration = Duration::from_secs(30);
/// Names a page of a list.
const PAGE: usize = 500;

/// The slices of this host as they were last read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SliceView {
    /// Slices that a NIC of this host is a member of, in the order of their ids.
    pub slices: Vec<Slice>,
    /// When they were read; `None` before the first answer.
    pub read_at: Option<Timestamp>,
    /// Why the last attempt gave nothing; empty when it did.
    pub trouble: String,
}

/// The way to the controller.
#[derive(Debug, Clone)]
pub struct Uplink(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Name,
    places: Places,
    joined: RwLock<Option<Joined>>,
    view: watch::Sender<SliceView>,
    joining: tokio::sync::Notify,
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Joined {
    client: Client,
    identity: Arc<Identity>,
}
impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joined({:?})", self.identity)
    }
}

impl Uplink {
    /// Not connected yet: [`Uplink::open`] does that.
    pub fn new(config: &Config, places: &Places) -> Self {
        Self(Arc::new(Inner {
            host: config.host.clone(),
            places: places.clone(),
            joined: RwLock::new(None),
            view: watch::Sender::new(SliceView::default()),
            joining: tokio::sync::Notify::new(),
            renewing: tokio::sync::Mutex::new(()),
        }))
    }

    /// Takes the identity of this host from its disk. A host that has not joined yet is no error.
    pub fn open(&self) -> Result<(), Problem> {
        match identity::load(&self.0.places)? {
            Some(identity) => self.connect(identity),
            None => Ok(()),
        }
    }

    /// Joins a domain with an invitation. The same invitation twice is success.
    pub async fn join(
        &self,
        invitation: dtn_api::domain::Invitation,
    ) -> Result<Arc<Identity>, Problem> {
        let identity =
            identity::join(&self.0.places, &self.0.host, invitation, Timestamp::now()).await?;
        self.connect(identity)?;
        self.0.joining.notify_one();
        self.identity().ok_or_else(not_joined)
    }

    /// This host as its controller knows it by its certificate.
    pub async fn node(&self) -> Result<Node, Problem> {
        self.get(&format!("/nodes/{}", self.0.host)).await
    }
    /// Renews the certificate, with a new key; when it ends. Safe to repeat, and one at a time.
    pub async fn renew_certificate(&self) -> Result<Timestamp, Problem> {
        let _one = self.0.renewing.lock().await;
        let joined = self.joined()?;
        let path = format!("{VDN_BASE}/nodes/{}/certificate", self.0.host);
        let renewed = identity::renew(&self.0.places, &joined.identity, async |renewal| {
            let call = joined.client.post::<_, Enrolled>(&path, &renewal);
            call.await.map_err(ClientError::into_problem)
        })
        .await?;
        let until = renewed.certificate()?.until;
        self.connect(renewed)?;
        Ok(until)
    }

    fn connect(&self, identity: Identity) -> Result<(), Problem> {
        if identity.host != self.0.host {
            return Err(Problem::new(
                Kind::StateConflict,
                format!(
                    "this host joined {} as {}, and its configuration calls it {} (host.name): \
                     set the name back, or remove {} and join anew",
                    identity.domain,
                    identity.host,
                    self.0.host,
                    self.0.places.identity().display()
                ),
            ));
        }
        let tls = TlsIdentity {
            ca_pem: identity.ca_pem.clone(),
            own: Some((identity.certificate_pem.clone(), identity.key_pem.clone())),
        };
        let client =
            Client::tls(&identity.url, &tls, DEADLINE).map_err(ClientError::into_problem)?;
        *self.0.joined.write().unwrap_or_else(|e| e.into_inner()) = Some(Joined {
            client,
            identity: Arc::new(identity),
        });
        Ok(())
    }

    /// Resolves when the host has just joined.
    pub(crate) async fn joined_now(&self) {
        self.0.joining.notified().await;
    }

    /// Who this host is, once it has joined.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.joined().ok().map(|joined| joined.identity)
    }
    fn joined(&self) -> Result<Joined, Problem> {
        let joined = self.0.joined.read().unwrap_or_else(|e| e.into_inner());
        joined.clone().ok_or_else(not_joined)
    }

    /// The slices as they were last read, and a wake-up at each change of them.
    pub fn watch(&self) -> watch::Receiver<SliceView> {
        self.0.view.subscribe()
    }

    /// Reads the slices that one of these NICs is a member of, and renews the view.
    pub async fn refresh(&self, nics: &[HostId]) -> Result<(), Problem> {
        let found = self.slices().await.map(|mut slices| {
            slices.retain(|slice| {
                let mut hosts = slice.spec.members.iter().filter_map(|m| m.host.as_ref());
                hosts.any(|host| nics.contains(host))
            });
            slices
        });
        let outcome = found.as_ref().map(|_| ()).map_err(Clone::clone);
        self.0.view.send_modify(|view| match found {
            Ok(slices) => {
                *view = SliceView {
                    slices,
                    read_at: Some(Timestamp::now()),
                    trouble: String::new(),
                };
            }
            Err(problem) => view.trouble = problem.to_string(),
        });
        outcome
    }

    // ---- slices -------------------------------------------------------------------------------

    /// Every slice that this host may see.
    pub async fn slices(&self) -> Result<Vec<Slice>, Problem> {
        self.list("/slices").await
    }
    /// One slice.
    pub async fn slice(&self, id: Uuid) -> Result<Slice, Problem> {
        self.get(&format!("/slices/{id}")).await
    }
    /// The slice of this name that has not ended, asked of the controller. Of several (of several
    /// tenants) the one that is booked, then the newest.
    pub async fn slice_by_name(&self, name: &Name) -> Result<Slice, Problem> {
        let now = Timestamp::now();
        let slices = self.slices().await?;
        slices
            .into_iter()
            .filter(|slice| slice.spec.name == *name)
            .max_by_key(|slice| (slice.booked_at(now), slice.created_at))
            .ok_or_else(|| {
                Problem::new(
                    Kind::NotFound,
                    format!("no slice {name} in this domain: dtnctl slice list shows them"),
                )
            })
    }
    /// Holds a slice within this domain. The key makes a repeated call one.
    pub async fn post_slice(&self, key: &str, spec: &SliceSpec) -> Result<Slice, Problem> {
        self.post("/slices", key, spec).await
    }
    /// `commit`, `abort`, `provision`, `release` or `terminate` on a slice.
    pub async fn slice_action(&self, id: Uuid, action: &str) -> Result<Slice, Problem> {
        let path = format!("/slices/{id}");
        self.act(&path, action, None::<&()>, |slice: &Slice| slice.version)
            .await
    }
    /// Gives a slice a later end; both sides of it when it is stitched.
    pub async fn extend(&self, id: Uuid, end: Timestamp) -> Result<Slice, Problem> {
        let path = format!("/slices/{id}");
        self.act(&path, "extend", Some(&Extend { end }), |slice: &Slice| {
            slice.version
        })
        .await
    }
    /// What could be had.
    pub async fn availability(&self, query: &AvailabilityQuery) -> Result<Availability, Problem> {
        let path = format!("{VDN_BASE}/availability");
        self.joined()?
            .client
            .post(&path, query)
            .await
            .map_err(ClientError::into_problem)
    }

    // ---- stitches -----------------------------------------------------------------------------

    /// Holds a slice in both domains. The key makes a repeated call one.
    pub async fn post_stitch(&self, key: &str, spec: &StitchSpec) -> Result<Stitch, Problem> {
        self.post("/stitches", key, spec).await
    }
    /// One stitch.
    pub async fn stitch(&self, id: Uuid) -> Result<Stitch, Problem> {
        self.get(&format!("/stitches/{id}")).await
    }
    /// `commit`, `abort` or `terminate` on a stitch.
    pub async fn stitch_action(&self, id: Uuid, action: &str) -> Result<Stitch, Problem> {
        let path = format!("/stitches/{id}");
        self.act(&path, action, None::<&()>, |stitch: &Stitch| stitch.version)
            .await
    }

    // ---- members and hosts --------------------------------------------------------------------

    /// Declares a NIC or a pod of this host.
    pub async fn put_host(&self, id: &HostId, spec: &HostSpec) -> Result<Host, Problem> {
        self.put(&format!("/hosts/{id}"), spec).await
    }
    /// Every host of the domain.
    pub async fn hosts(&self) -> Result<Vec<Host>, Problem> {
        self.list("/hosts").await
    }
    /// Takes a host back; success when there is none.
    pub async fn delete_host(&self, id: &HostId) -> Result<(), Problem> {
        self.delete(&format!("/hosts/{id}")).await
    }
    /// Lets a NIC of this host join an open slice; it goes again once no pod is on it.
    pub async fn put_member(&self, slice: Uuid, host: &HostId) -> Result<Slice, Problem> {
        let member = Member::of_host(host.clone(), Role::Endpoint);
        self.put(&format!("/slices/{slice}/members/{host}"), &member)
            .await
    }
    /// Tells what the kernel paces a member to.
    pub async fn report_enforcement(
        &self,
        slice: Uuid,
        host: &HostId,
        enforcement: &Enforcement,
    ) -> Result<(), Problem> {
        let path = format!("/slices/{slice}/enforcement/{host}");
        self.put::<_, serde_json::Value>(&path, enforcement)
            .await
            .map(|_| ())
    }

    // ---- leases -------------------------------------------------------------------------------

    /// Leases of this host.
    pub async fn leases(&self) -> Result<Vec<Lease>, Problem> {
        self.list(&format!("/leases?node={}", self.0.host)).await
    }
    /// An address for a client; the same one for the same client.
    pub async fn lease(&self, slice: Uuid, request: &LeaseRequest) -> Result<Lease, Problem> {
        // The client id makes it safe to repeat. The key is new each time, because an old key would
        // bring back the answer of a lease that was released since.
        let key = Uuid::now_v7().to_string();
        self.post(&format!("/slices/{slice}/leases"), &key, request)
            .await
    }
    /// Gives a lease back; success when there is none.
    pub async fn release(&self, lease: Uuid) -> Result<(), Problem> {
        self.delete(&format!("/leases/{lease}")).await
    }
    /// Renews many leases in one call.
    pub async fn renew(&self, ids: Vec<Uuid>) -> Result<Vec<RenewResult>, Problem> {
        let path = format!("{VDN_BASE}/leases:renew");
        let list: List<RenewResult> = self
            .joined()?
            .client
            .post(&path, &RenewBatch { ids })
            .await
            .map_err(ClientError::into_problem)?;
        Ok(list.items)
    }

    // ---- gateways -----------------------------------------------------------------------------

    /// Declares a gateway of this host.
    pub async fn put_gateway(&self, name: &Name, spec: &GatewaySpec) -> Result<Gateway, Problem> {
        self.put(&format!("/gateways/{name}"), spec).await
    }
    /// A gateway as the controller has it.
    pub async fn gateway(&self, name: &Name) -> Result<Gateway, Problem> {
        self.get(&format!("/gateways/{name}")).await
    }
    /// Its access rules.
    pub async fn access_rules(&self, name: &Name) -> Result<AccessRules, Problem> {
        let standing: StandingRules = self.get(&format!("/gateways/{name}/access_rules")).await?;
        Ok(AccessRules {
            items: standing.items.into_iter().map(|item| item.rule).collect(),
            version: standing.version,
        })
    }
    /// Tells what the kernel of this host has of it.
    pub async fn report_gateway(&self, name: &Name, report: &GatewayReport) -> Result<(), Problem> {
        let path = format!("/gateways/{name}/report");
        self.put::<_, serde_json::Value>(&path, report)
            .await
            .map(|_| ())
    }

    // ---- how -----------------------------------------------------------------------------------

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let path = format!("{VDN_BASE}{path}");
        let client = self.joined()?.client;
        client.get(&path).await.map_err(ClientError::into_problem)
    }
    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Problem> {
        let mut items = Vec::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut next = format!("{path}{joint}limit={PAGE}");
        loop {
            let page: List<T> = self.get(&next).await?;
            items.extend(page.items);
            match page.next_page_token {
                Some(token) => next = format!("{path}{joint}limit={PAGE}&page_token={token}"),
                None => return Ok(items),
            }
        }
    }
    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &B,
    ) -> Result<T, Problem> {
        let path = format!("{VDN_BASE}{path}");
        let client = self.joined()?.client;
        // a lost answer is asked for once more at once: the key makes it the same request
        match client.post_once(&path, key, body).await {
            Err(ClientError::Unreachable { .. }) => client.post_once(&path, key, body).await,
            other => other,
        }
        .map_err(ClientError::into_problem)
    }
    async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Problem> {
        let path = format!("{VDN_BASE}{path}");
        let client = self.joined()?.client;
        let answer = client.call(Method::PUT, &path, &[], Some(body)).await;
        answer
            .map(|answer| answer.body)
            .map_err(ClientError::into_problem)
    }
    async fn delete(&self, path: &str) -> Result<(), Problem> {
        let path = format!("{VDN_BASE}{path}");
        let client = self.joined()?.client;
        match client.delete(&path, None).await {
            Err(e) if e.is(Kind::NotFound) => Ok(()),
            other => other.map_err(ClientError::into_problem),
        }
    }
    /// An action needs the version it is meant for: read, act, and again when someone was faster.
    async fn act<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        action: &str,
        body: Option<&B>,
        version: impl Fn(&T) -> u64,
    ) -> Result<T, Problem> {
        let client = self.joined()?.client;
        let target = format!("{VDN_BASE}{path}/actions/{action}");
        let mut attempts = 0;
        loop {
            let current: T = self.get(path).await?;
            let etag = format!("\"v{}\"", version(&current));
            attempts += 1;
            match client
                .call(Method::POST, &target, &[("if-match", &etag)], body)
                .await
            {
                Ok(answer) => return Ok(answer.body),
                Err(e) if e.is(Kind::VersionMismatch) && attempts < 4 => {}
                Err(e) => return Err(e.into_problem()),
            }
        }
    }
}

pub(crate) fn not_joined() -> Problem {
    Problem::new(
        Kind::BackendUnavailable,
        "this host has not joined a domain: run dtnctl host join with what dtnctl host invite \
         printed on the controller",
    )
}
