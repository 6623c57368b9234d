//! The transfer key of a pod in a cluster: a Secret that is made once and never replaced.

use super::{FIELD_MANAGER, cluster::Cluster};
use crate::failure::Failure;
use dtn_workloads::{TransferKey, kubernetes::Manifests};
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt as _, api::PostParams};
use std::time::SystemTime;

/// The Secret with the key: the one that is there, or the other end's, or a new one. Whether it was
/// made anew; `None` when the pod needs none.
pub(crate) async fn settle(
    cluster: &Cluster,
    made: &Manifests,
    given: Option<TransferKey>,
) -> Result<Option<bool>, Failure> {
    let anew = given.is_none();
    let wanted = match given {
        Some(key) => key,
        None => TransferKey::generate(SystemTime::now()).map_err(anyhow::Error::new)?,
    };
    let Some(secret) = made.secret(&wanted) else {
        return match anew {
            true => Ok(None),
            false => Err(Failure::Usage(
                "--key: the template has no transfer key".into(),
            )),
        };
    };
    let name = secret.name_any();
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    let api = cluster.secrets();
    match api.create(&params, &secret).await {
        Ok(_) => return Ok(Some(anew)),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(cluster.failed(format!("making Secret {name}"), error)),
    }
    let there = api
        .get(&name)
        .await
        .map_err(|error| cluster.failed(format!("reading Secret {name}"), error))?;
    let files = made.key.iter().flat_map(|(_, files)| files);
    for file in files {
        let found = in_secret(&there, file);
        let why = match found {
            None => format!("Secret {name} is there and holds no transfer key {file}"),
            Some(found) if !anew && found != wanted => {
                format!("Secret {name} is there and holds another key than --key")
            }
            Some(_) => continue,
        };
        return Err(Failure::because(why).or_next(format!(
            "take it away when no pod needs it: kubectl delete secret {name} --namespace {}",
            cluster.namespace
        )));
    }
    Ok(Some(false))
}

fn in_secret(secret: &Secret, file: &str) -> Option<TransferKey> {
    let bytes = &secret.data.as_ref()?.get(file)?.0;
    TransferKey::parse(std::str::from_utf8(bytes).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_secret_is_read_back() {
        let key = TransferKey::generate(SystemTime::UNIX_EPOCH).unwrap();
        let secret: Secret = Secret {
            data: Some(
                [(
                    "k".to_owned(),
                    k8s_openapi::ByteString(key.line().into_bytes()),
                )]
                .into(),
            ),
            ..Secret::default()
        };
        assert_eq!(in_secret(&secret, "k"), Some(key));
        assert_eq!(in_secret(&secret, "other"), None);
    }
}
