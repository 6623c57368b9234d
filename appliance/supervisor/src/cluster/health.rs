//! How the published NICs are, for the kubelet, which shows it in the status of their pods.

use super::{
    Cluster,
    contracts::health::{
        DeviceHealth, DeviceIdentifier, HealthStatus, NodeWatchResourcesRequest,
        NodeWatchResourcesResponse, dra_resource_health_server::DraResourceHealth,
    },
    publish,
};
use dtn_api::nic::Nic;
use futures_util::{Stream, StreamExt, stream};
use k8s_openapi::api::resource::v1::Device;
use std::{pin::Pin, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Silence for so many seconds makes a device's health unknown.
const TIMEOUT: i64 = 60;
/// It is told again this often.
const AGAIN: Duration = Duration::from_secs(20);

/// The health of each published device.
pub(super) fn health(node: &str, devices: &[Device], nics: &[Nic], now: i64) -> Vec<DeviceHealth> {
    let of = |device: &Device| {
        let nic = nics
            .iter()
            .find(|nic| publish::name_of(nic.name.as_str()) == device.name);
        let (health, message) = match nic {
            Some(nic) => match nic.dark() {
                None => (HealthStatus::Healthy, String::new()),
                Some(why) => (HealthStatus::Unhealthy, why),
            },
            None => (HealthStatus::Unknown, "it is not on the host".into()),
        };
        DeviceHealth {
            device: Some(DeviceIdentifier {
                pool_name: node.to_owned(),
                device_name: device.name.clone(),
            }),
            health: health.into(),
            last_updated_time: now,
            health_check_timeout_seconds: TIMEOUT,
            message,
        }
    };
    devices.iter().map(of).collect()
}

/// The service of that, until it is stopped: the kubelet's streams end with it, and would otherwise
/// keep it from ending.
#[derive(Debug, Clone)]
pub(super) struct Health(pub(super) Cluster, pub(super) CancellationToken);

#[tonic::async_trait]
impl DraResourceHealth for Health {
    type NodeWatchResourcesStream =
        Pin<Box<dyn Stream<Item = Result<NodeWatchResourcesResponse, Status>> + Send>>;

    async fn node_watch_resources(
        &self,
        _: Request<NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        let told = told(self.0.0.health.subscribe(), self.1.clone());
        Ok(Response::new(Box::pin(told)))
    }
}

/// What is seen now, and again with each change and each [`AGAIN`], until it is stopped.
fn told(
    mut seen: watch::Receiver<Vec<DeviceHealth>>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<NodeWatchResourcesResponse, Status>> {
    seen.mark_changed();
    let told = stream::unfold((seen, Vec::new()), |(mut seen, last)| async move {
        loop {
            let changed = tokio::time::timeout(AGAIN, seen.changed()).await;
            if let Ok(Err(_)) = changed {
                return None;
            }
            let devices = seen.borrow_and_update().clone();
            // a look that found nothing new is told when it is time, and not before
            if changed.is_err() || without_time(&devices) != last {
                let last = without_time(&devices);
                let answer = NodeWatchResourcesResponse { devices };
                return Some((Ok(answer), (seen, last)));
            }
        }
    });
    told.take_until(stop.cancelled_owned())
}

fn without_time(devices: &[DeviceHealth]) -> Vec<DeviceHealth> {
    let mut devices = devices.to_vec();
    for device in &mut devices {
        device.last_updated_time = 0;
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_when_the_daemon_is_stopped() {
        let (_tell, seen) = watch::channel(vec![DeviceHealth::default()]);
        let stop = CancellationToken::new();
        let mut told = Box::pin(told(seen, stop.clone()));
        let first = told.next().await.unwrap().unwrap();
        assert_eq!(first.devices.len(), 1);
        stop.cancel();
        assert!(told.next().await.is_none());
    }

    #[test]
    fn a_nic_without_carrier_is_not_well() {
        let nic = |name: &str, carrier: bool| -> Nic {
            serde_json::from_value(serde_json::json!({
                "name": name, "identity": {}, "mac": "02:00:00:00:00:01", "class": "dedicated",
                "carrier": carrier, "speed": null, "mtu": 1500, "driver": null,
            }))
            .unwrap()
        };
        let device = |name: &str| Device {
            name: name.into(),
            ..Device::default()
        };
        let devices = [device("a"), device("b"), device("c")];
        let found = health("n1", &devices, &[nic("a", true), nic("b", false)], 7);
        let states: Vec<HealthStatus> = found.iter().map(DeviceHealth::health).collect();
        assert_eq!(
            states,
            [
                HealthStatus::Healthy,
                HealthStatus::Unhealthy,
                HealthStatus::Unknown
            ]
        );
        assert!(found[1].message.contains("cable"));
        assert_ne!(found, without_time(&found));
    }
}
