//! Who calls, and what each may do. Denied unless it is in the table. Pure but for reading the
//! token file.

use crate::fabric::edge::SITE_SWITCH;
use dtn_api::{Name, Problem, problem::Kind};
use http::Method;
use rustls_pki_types::CertificateDer;
use std::fmt;

/// Who is at the other end of a connection, or of a request with a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Root on this machine, over the unix socket.
    Admin,
    /// Whoever has the operator's token.
    Operator,
    /// A host of this domain, by its certificate.
    Node(Name),
    /// Another domain's controller, by its certificate.
    Peer(Name),
    /// The controller of a Kubernetes cluster, by its certificate: it reads what slices there are.
    Cluster(Name),
    /// Nobody in particular.
    Anonymous,
    /// The controller itself: time passed, or another domain was told.
    Itself,
}
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Operator => f.write_str("operator"),
            Self::Node(name) => write!(f, "node-agent/{name}"),
            Self::Peer(name) => write!(f, "peer/{name}"),
            Self::Cluster(name) => write!(f, "{CLUSTER_ROLE}/{name}"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Itself => f.write_str("vdnd"),
        }
    }
}

/// SHA-256 of the certificate (DER) that a connection came with, hexadecimal.
#[derive(Debug, Clone, Default)]
pub struct Shown(pub Option<String>);

/// Role of a host in its certificate's URI.
pub const NODE_ROLE: &str = "node-agent";
/// Role of a Kubernetes cluster's controller in its certificate's URI.
pub const CLUSTER_ROLE: &str = "cluster";
/// Role of a switch in its certificate's URI. It may connect as a switch, and ask for nothing.
pub const SWITCH_ROLE: &str = "switch";

/// Domain, role and name in a certificate's URI.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Option<(Name, String, Name)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut found = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
            _ => None,
        });
    // exactly one: of two nobody could say who it is
    let (Some(one), None) = (found.next(), found.next()) else {
        return None;
    };
    let mut parts = one.split('/');
    let (domain, role, name) = (parts.next()?, parts.next()?, parts.next()?);
    match parts.next() {
        Some(_) => None,
        None => Some((domain.parse().ok()?, role.to_owned(), name.parse().ok()?)),
    }
}

/// The principal of a certificate that was verified with the authority of its own domain.
pub fn principal_of(certificate: &CertificateDer<'_>, own_domain: &Name) -> Principal {
    match identity_of(certificate) {
        Some((domain, role, name)) if role == NODE_ROLE && domain == *own_domain => {
            Principal::Node(name)
        }
        Some((domain, role, name)) if role == CLUSTER_ROLE && domain == *own_domain => {
            Principal::Cluster(name)
        }
        Some((domain, role, name)) if role == "peer" && domain != *own_domain && name == domain => {
            Principal::Peer(domain)
        }
        _ => Principal::Anonymous,
    }
}

/// Who may call which route; paths are the routes' own, below the base.
pub fn permits(principal: &Principal, method: &Method, route: &str) -> bool {
    let get = *method == Method::GET;
    // found by whoever can connect: they say nothing about slices or hosts
    if get && matches!(route, "/healthz" | "/readyz" | "/openapi.json") {
        return true;
    }
    // the secret in the body is the credential
    if *method == Method::POST && matches!(route, "/enrolments" | "/federations") {
        return true;
    }
    match principal {
        Principal::Admin | Principal::Operator => true,
        // its own hosts, leases, slices and gateways; handlers look at whose they are
        Principal::Node(_) => match route {
            "/hosts" | "/topology" | "/domains" | "/domains/{name}" | "/domain_document" => get,
            // who passes a gateway is an operator's to say, not its host's
            "/gateways/{name}/access_rules"
            | "/gateways/{name}/access_rules/{number}"
            | "/gateways/{name}/explain" => get,
            // its own; the handler looks at whose it is
            "/nodes/{name}" => get,
            "/invitations"
            | "/nodes"
            | "/nodes/{name}/actions/revoke"
            | "/clusters"
            | "/clusters/{name}/actions/revoke"
            | "/domains/{name}/actions/revoke"
            | "/domains/{name}/keys"
            | "/keys"
            | "/keys/actions/rotate"
            | "/stitches/inbound"
            | "/events"
            | "/metrics"
            | "/config"
            | "/config/reload"
            | "/fabric"
            | "/fabric/differences"
            | "/fabric/links"
            | "/fabric/switches/{name}/certificate" => false,
            _ => true,
        },
        Principal::Peer(_) => match route {
            "/domain_document" | "/stitches/{id}" => get,
            "/domains/{name}/keys" => *method == Method::PUT,
            "/availability"
            | "/stitches/inbound"
            | "/stitches/{id}/actions/{action}"
            | "/stitches/{id}/actions/extend" => *method == Method::POST,
            _ => false,
        },
        // it negotiates with what it reads; NIC and lease are had by the hosts
        Principal::Cluster(_) => match route {
            "/slices" | "/slices/{id}" | "/hosts" | "/hosts/{id}" | "/topology" => get,
            "/availability" => *method == Method::POST,
            _ => false,
        },
        Principal::Anonymous | Principal::Itself => false,
    }
}

/// The switch that a certificate names, which was verified with the authority of the own domain.
pub fn switch_of(certificate: &CertificateDer<'_>, own_domain: &Name) -> Option<Name> {
    match identity_of(certificate)? {
        (domain, role, name) if role == SWITCH_ROLE && domain == *own_domain => Some(name),
        _ => None,
    }
}

/// What is said to who may not.
pub fn refusal(principal: &Principal, method: &Method, path: &str) -> Problem {
    match principal {
        Principal::Anonymous => Problem::new(
            Kind::Unauthenticated,
            format!(
                "{method} {path} needs a certificate of this domain, of a federated domain, or the \
                 operator's token"
            ),
        ),
        known => Problem::new(Kind::Forbidden, format!("{known} may not {method} {path}")),
    }
}

/// Refuses a node that acts for another one.
pub fn own_node(principal: &Principal, node: &Name) -> Result<(), Problem> {
    match principal {
        Principal::Admin | Principal::Operator => Ok(()),
        Principal::Node(name) if name == node => Ok(()),
        other => Err(Problem::new(
            Kind::Forbidden,
            format!("{other} may not act for node {node}"),
        )),
    }
}

/// Whether the token is the operator's: the file's only line. Compared by digest, so that the time
/// it takes tells nothing.
pub fn is_operator(file: Option<&std::path::Path>, token: &str) -> Result<bool, Problem> {
    let Some(file) = file else { return Ok(false) };
    let text = dtn_service::credentials::find(file)
        .and_then(std::fs::read_to_string)
        .map_err(|e| {
            Problem::new(
                Kind::Internal,
                format!("reading the operator's token from {}: {e}", file.display()),
            )
        })?;
    let wanted = text.trim();
    let digest = |text: &str| crate::invitations::sha256(text.as_bytes());
    Ok(wanted.len() >= 16 && digest(wanted) == digest(token))
}

/// Whether a name can be a border link's: it would stand for something else otherwise.
pub fn reserved_name(name: &Name) -> bool {
    name.as_str() == SITE_SWITCH || name.as_str().starts_with("nic-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_table_is_denied() {
        let name: Name = "x".parse().unwrap();
        let cluster = Principal::Cluster(name.clone());
        let (node, peer) = (Principal::Node(name.clone()), Principal::Peer(name));
        let cases = [
            (&Principal::Anonymous, Method::POST, "/enrolments", true),
            (&Principal::Anonymous, Method::GET, "/enrolments", false),
            (&Principal::Anonymous, Method::GET, "/healthz", true),
            (&Principal::Anonymous, Method::GET, "/slices", false),
            (&Principal::Anonymous, Method::GET, "/metrics", false),
            (&peer, Method::POST, "/stitches/inbound", true),
            (&peer, Method::POST, "/stitches", false),
            (&peer, Method::GET, "/stitches", false),
            (&peer, Method::GET, "/slices/{id}", false),
            (&peer, Method::GET, "/hosts", false),
            (&peer, Method::GET, "/domain_document", true),
            (&peer, Method::POST, "/availability", true),
            (&cluster, Method::GET, "/slices", true),
            (&cluster, Method::GET, "/hosts", true),
            (&cluster, Method::POST, "/availability", true),
            (&cluster, Method::POST, "/slices", false),
            (&cluster, Method::PUT, "/hosts/{id}", false),
            (&cluster, Method::POST, "/slices/{id}/leases", false),
            (&cluster, Method::PUT, "/slices/{id}/members/{host}", false),
            (&cluster, Method::GET, "/leases", false),
            (&cluster, Method::GET, "/events", false),
            (&cluster, Method::GET, "/stitches", false),
            (&node, Method::POST, "/stitches/inbound", false),
            (&node, Method::POST, "/invitations", false),
            (&node, Method::POST, "/domains", false),
            (&node, Method::PUT, "/hosts/{id}", true),
            (&node, Method::POST, "/slices/{id}/leases", true),
            (&node, Method::GET, "/events", false),
            (&node, Method::PUT, "/gateways/{name}", true),
            (&node, Method::PUT, "/gateways/{name}/report", true),
            (&node, Method::GET, "/gateways/{name}/access_rules", true),
            (&node, Method::PUT, "/gateways/{name}/access_rules", false),
            (
                &node,
                Method::DELETE,
                "/gateways/{name}/access_rules/{number}",
                false,
            ),
            (&peer, Method::PUT, "/domains/{name}/keys", true),
            (&peer, Method::GET, "/nodes", false),
            (&node, Method::PUT, "/domains/{name}/keys", false),
            (&node, Method::GET, "/nodes", false),
            (&node, Method::GET, "/nodes/{name}", true),
            (&node, Method::POST, "/nodes/{name}/certificate", true),
            (&node, Method::POST, "/nodes/{name}/actions/revoke", false),
            (
                &node,
                Method::POST,
                "/clusters/{name}/actions/revoke",
                false,
            ),
            (&node, Method::GET, "/clusters", false),
            (&cluster, Method::GET, "/clusters", false),
            (&node, Method::POST, "/domains/{name}/actions/revoke", false),
            (&node, Method::GET, "/keys", false),
            (&node, Method::POST, "/keys/actions/rotate", false),
            (&cluster, Method::POST, "/nodes/{name}/certificate", false),
            (&peer, Method::GET, "/gateways", false),
            (&peer, Method::GET, "/gateways/{name}/explain", false),
        ];
        for (who, method, route, may) in cases {
            assert_eq!(permits(who, &method, route), may, "{who} {method} {route}");
        }
    }
}
