//! Which cluster is meant, the way to it, and what its refusals mean to a person.

use super::Reach;
use crate::failure::Failure;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Event, Pod, Secret},
        resource::v1::{ResourceClaim, ResourceClaimTemplate},
    },
};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};
use std::{error::Error as _, path::PathBuf, time::Duration};

/// Longest time until a cluster takes a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The account of a pod, as Kubernetes mounts it.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Calls on one namespace of a cluster.
pub(crate) struct Cluster {
    client: Client,
    /// The namespace of everything.
    pub(crate) namespace: String,
    /// Which cluster, for messages.
    pub(crate) shown: String,
}

impl Cluster {
    /// The cluster that the options mean. Nothing is asked of it yet.
    pub(crate) async fn find(reach: &Reach) -> Result<Self, Failure> {
        let (mut config, source) = config(reach).await?;
        config.connect_timeout = Some(CONNECT);
        if let Some(namespace) = &reach.namespace {
            config.default_namespace.clone_from(namespace);
        }
        let namespace = config.default_namespace.clone();
        let shown = format!("{} ({source})", config.cluster_url);
        let client = Client::try_from(config)
            .map_err(|error| invalid(&format!("connecting to {shown}"), &error))?;
        Ok(Self {
            client,
            namespace,
            shown,
        })
    }

    /// Objects of the namespace.
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
    /// Pods.
    pub(crate) fn pods(&self) -> Api<Pod> {
        self.api()
    }
    /// Claims.
    pub(crate) fn claims(&self) -> Api<ResourceClaim> {
        self.api()
    }
    /// Templates of claims.
    pub(crate) fn templates(&self) -> Api<ResourceClaimTemplate> {
        self.api()
    }
    /// Secrets.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        self.api()
    }
    /// Events.
    pub(crate) fn events(&self) -> Api<Event> {
        self.api()
    }
    /// Objects of the whole cluster, or of all its namespaces.
    pub(crate) fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    /// A call that failed, for a person.
    pub(crate) fn failed(&self, doing: impl Into<String>, error: kube::Error) -> Failure {
        let doing = doing.into();
        match error {
            kube::Error::Api(status) => self.refused(&doing, &status),
            error if no_answer(&error) => Failure::Unreachable {
                what: format!(
                    "{doing}: the cluster does not answer at {}: {}",
                    self.shown,
                    innermost(&error)
                ),
                next: "look whether it is up and its address right; --kubeconfig and --context \
                       choose another"
                    .into(),
            },
            error => invalid(&doing, &error),
        }
    }

    /// The answer is no.
    pub(crate) fn refused(&self, doing: &str, status: &Status) -> Failure {
        let mut text = format!("{doing}: {}", said(status));
        let next = match status.code {
            401 => {
                text = format!(
                    "{doing}: the cluster does not know who asks: {}",
                    self.shown
                );
                Some("renew the credentials of the kubeconfig, or choose another context".into())
            }
            // made with each namespace, a moment later (kube-controller-manager)
            403 if status.message.contains("error looking up service account") => Some(format!(
                "the namespace is new: try it again; if that lasts, look whether it is made: kubectl \
                 get serviceaccounts --namespace {}",
                self.namespace
            )),
            // the right is there, and a policy of the cluster says no
            403 if !status.message.contains(" cannot ") => Some(
                "it is no question of rights: an admission policy or a quota of the cluster says so"
                    .into(),
            ),
            403 => Some(format!(
                "who administers the cluster gives the right: kubectl create rolebinding dtn-operator \
                 --clusterrole dtn-operator --user NAME --namespace {}",
                self.namespace
            )),
            404 if status.message.contains("requested resource") => {
                text = format!(
                    "{doing}: the cluster has no resource.k8s.io/v1: {}",
                    self.shown
                );
                Some("use a cluster of Kubernetes 1.35 or newer".into())
            }
            404 if status.message.starts_with("namespaces ") => Some(format!(
                "make it: kubectl create namespace {}",
                self.namespace
            )),
            429 | 500.. => Some("the same command can succeed later: try it again".into()),
            _ => None,
        };
        let failure = Failure::because(text);
        match next {
            Some(next) => failure.or_next(next),
            None => failure,
        }
    }
}

/// Whether nobody answered, other than with a refusal.
pub(crate) fn no_answer(error: &kube::Error) -> bool {
    matches!(
        error,
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)
    )
}

/// What the API server said, with each field that it names on a line of its own.
fn said(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<String> = causes
        .filter(|cause| !cause.field.is_empty())
        .map(|cause| format!("\n  {}: {}", cause.field, cause.message))
        .collect();
    match (fields.is_empty(), status.message.split_once(": ")) {
        // the message repeats all causes behind the first colon
        (false, Some((what, _))) if fields.len() > 1 => format!("{what}:{}", fields.concat()),
        _ => status.message.clone(),
    }
}

/// The first cause of an error; those above it say the same again.
fn innermost(error: &kube::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

fn invalid(doing: &str, error: &kube::Error) -> Failure {
    // kube's texts hold their causes
    let text = match error.source() {
        Some(_) => innermost(error),
        None => error.to_string(),
    };
    Failure::because(format!("{doing}: {text}"))
}

/// The configuration, and where it was found.
async fn config(reach: &Reach) -> Result<(Config, String), Failure> {
    let (kubeconfig, source) = match kubeconfig(reach)? {
        Some(found) => found,
        None if std::path::Path::new(ACCOUNT).exists() && reach.context.is_none() => {
            let config = Config::incluster().map_err(|error| {
                Failure::because(format!("using the pod's own account: {error}"))
            })?;
            return Ok((config, "the pod's own account".into()));
        }
        None => {
            return Err(Failure::Unreachable {
                what: "no cluster is known: there is no --kubeconfig, no $KUBECONFIG and no \
                       ~/.kube/config"
                    .into(),
                next: "name the cluster's kubeconfig: --kubeconfig FILE".into(),
            });
        }
    };
    let context = reach.context.clone();
    let chosen = context.clone().or(kubeconfig.current_context.clone());
    let contexts: Vec<String> = kubeconfig.contexts.iter().map(|c| c.name.clone()).collect();
    let source = match &chosen {
        Some(chosen) => format!("{source}, context {chosen}"),
        None => source,
    };
    let options = KubeConfigOptions {
        context,
        ..KubeConfigOptions::default()
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    config
        .map(|config| (config, source.clone()))
        .map_err(|error| {
            Failure::because(format!("using {source}: {error}"))
                .or_next(format!("it has the contexts: {}", contexts.join(", ")))
        })
}

fn kubeconfig(reach: &Reach) -> Result<Option<(Kubeconfig, String)>, Failure> {
    let unreadable = |source: &str, error: kube::config::KubeconfigError| {
        Failure::because(format!("reading {source}: {error}"))
    };
    if let Some(path) = &reach.kubeconfig {
        let source = format!("kubeconfig {}", path.display());
        return match Kubeconfig::read_from(path) {
            Ok(read) => Ok(Some((read, source))),
            Err(error) => Err(unreadable(&source, error)),
        };
    }
    let from_env = Kubeconfig::from_env().map_err(|error| unreadable("$KUBECONFIG", error))?;
    if let Some(read) = from_env {
        return Ok(Some((read, "$KUBECONFIG".into())));
    }
    let Some(home) = std::env::var_os("HOME") else {
        return Ok(None);
    };
    let path = PathBuf::from(home).join(".kube/config");
    if !path.exists() {
        return Ok(None);
    }
    let source = format!("kubeconfig {}", path.display());
    match Kubeconfig::read_from(&path) {
        Ok(read) => Ok(Some((read, source))),
        Err(error) => Err(unreadable(&source, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster() -> Cluster {
        // nothing is asked of it
        let config = Config::new("https://192.0.2.1:6443".parse().unwrap());
        Cluster {
            client: Client::try_from(config).unwrap(),
            namespace: "science".into(),
            shown: "https://192.0.2.1:6443 (kubeconfig /k, context c)".into(),
        }
    }

    fn told(status: serde_json::Value) -> String {
        let status: Status = serde_json::from_value(status).unwrap();
        cluster().refused("looking for pod a", &status).message()
    }

    #[tokio::test]
    async fn refusals_name_their_remedy() {
        let forbidden = told(json!({"code": 403, "reason": "Forbidden",
            "message": "pods \"a\" is forbidden: User \"u\" cannot get resource \"pods\""}));
        assert!(forbidden.contains("cannot get resource") && forbidden.contains("dtn-operator"));
        let new = told(json!({"code": 403, "reason": "Forbidden",
            "message": "pods \"a\" is forbidden: error looking up service account science/default: \
                        serviceaccount \"default\" not found"}));
        assert!(
            new.contains("get serviceaccounts --namespace science"),
            "{new}"
        );
        let quota = told(json!({"code": 403, "reason": "Forbidden",
            "message": "pods \"a\" is forbidden: exceeded quota: small, requested: pods=1"}));
        assert!(
            quota.contains("quota of the cluster") && !quota.contains("rolebinding"),
            "{quota}"
        );
        let unknown = told(json!({"code": 401, "message": "Unauthorized"}));
        assert!(unknown.contains("who asks: https://192.0.2.1:6443 (kubeconfig /k, context c)"));
        let old = told(json!({"code": 404,
            "message": "the server could not find the requested resource"}));
        assert!(old.contains("1.35"), "{old}");
        let namespace = told(json!({"code": 404, "message": "namespaces \"science\" not found"}));
        assert!(namespace.contains("kubectl create namespace science"));
    }

    #[tokio::test]
    async fn every_field_of_an_invalid_object_is_on_a_line() {
        let told = told(
            json!({"code": 422, "message": "Pod \"a\" is invalid: [x: y, z: w]",
            "details": {"causes": [{"field": "x", "message": "y"}, {"field": "z", "message": "w"}]}}),
        );
        assert_eq!(
            told,
            "dtnctl: looking for pod a: Pod \"a\" is invalid:\n  x: y\n  z: w\n"
        );
    }
}
