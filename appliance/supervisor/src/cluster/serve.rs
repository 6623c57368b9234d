//! The driver's service for the kubelet: each claim has its own answer, and an error of it is text
//! that stands in the pod's events.

use super::{
    Cluster,
    claim::{Allocated, ClaimId},
    contracts::dra::{
        Claim, Device, NodePrepareResourceResponse, NodePrepareResourcesRequest,
        NodePrepareResourcesResponse, NodeUnprepareResourceResponse, NodeUnprepareResourcesRequest,
        NodeUnprepareResourcesResponse, dra_plugin_server::DraPlugin,
    },
    counts::Asked,
};
use dtn_api::Problem;
use futures_util::future::join_all;
use std::time::Instant;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Driver(pub(super) Cluster);

#[tonic::async_trait]
impl DraPlugin for Driver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let all = request.into_inner().claims.into_iter().map(|claim| async {
            let id = id_of(claim);
            let cluster = self.0.clone();
            let asked = id.clone();
            // it goes on when the kubelet has given up: the next call finds it done
            let began = Instant::now();
            let done = tokio::spawn(async move { cluster.prepare(&asked).await }).await;
            let done = flat(done);
            self.0
                .0
                .counts
                .answered(Asked::Prepare, &done, began.elapsed());
            let answer = match done {
                Ok(devices) => NodePrepareResourceResponse {
                    devices: devices.into_iter().map(device).collect(),
                    error: String::new(),
                },
                Err(problem) => {
                    tracing::warn!(claim = %id, "not prepared: {problem}");
                    NodePrepareResourceResponse {
                        devices: Vec::new(),
                        error: problem.to_string(),
                    }
                }
            };
            (id.uid, answer)
        });
        let claims = join_all(all).await.into_iter().collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let all = request.into_inner().claims.into_iter().map(|claim| async {
            let id = id_of(claim);
            let cluster = self.0.clone();
            let uid = id.uid.clone();
            let began = Instant::now();
            let done = tokio::spawn(async move { cluster.unprepare(&uid).await }).await;
            let done = flat(done);
            self.0
                .0
                .counts
                .answered(Asked::Unprepare, &done, began.elapsed());
            let error = match done {
                Ok(()) => String::new(),
                Err(problem) => {
                    tracing::warn!(claim = %id, "not given back: {problem}");
                    problem.to_string()
                }
            };
            (id.uid, NodeUnprepareResourceResponse { error })
        });
        let claims = join_all(all).await.into_iter().collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

fn id_of(claim: Claim) -> ClaimId {
    ClaimId {
        uid: claim.uid,
        namespace: claim.namespace,
        name: claim.name,
    }
}

fn device(allocated: Allocated) -> Device {
    Device {
        request_names: vec![allocated.request],
        pool_name: allocated.pool,
        device_name: allocated.device,
        cdi_device_ids: Vec::new(),
        share_id: allocated.share_id,
    }
}

fn flat<T>(done: Result<Result<T, Problem>, tokio::task::JoinError>) -> Result<T, Problem> {
    done.unwrap_or_else(|e| {
        let why = format!("working on the claim: {e}");
        Err(Problem::new(dtn_api::problem::Kind::Internal, why))
    })
}
