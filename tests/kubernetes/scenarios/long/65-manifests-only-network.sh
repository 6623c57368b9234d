#!/usr/bin/env bash
# The chart with network=only on a cluster that has no network yet: the agents bring it, the nodes become
# ready by it, and every pod has an address of the VDN.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cluster.sh"
cluster=busan
NETWORK=none NICS=data0 "$top/tests/kubernetes/up.sh" $cluster 10.211.0 n1 n2 || exit 1
vdnd_up || exit 1
for node in n1 n2; do
    for image in dtn-node dtn-cluster; do
        node_exec $node ctr --namespace k8s.io images import "$built/$image.tar" >/dev/null 2>&1 || not_ok "$node takes the image $image"
    done
    node_exec $node tee /etc/dtn/appliance.toml >/dev/null <<TOML
version = 1

[host]
name = "$node"

[kubernetes]

[[nic]]
name = "data0"
class = "shared"
speed = "10Gbit"
TOML
done
chart() {
    "$built/chart/chart" "$KUBERNETES" dtn-system "$top/config/kubernetes/chart" network=only \
        onlyNetwork.apiServer.host=10.211.0.1 onlyNetwork.apiServer.port=443 2>/dev/null
}
k create namespace dtn-system >/dev/null
expect "the chart is applied" k apply --server-side --filename <(chart)
k label node n1 n2 dtn.appliance/node=true >/dev/null
on "$cluster-ctl" dtnctl cluster invite $cluster 2>/dev/null |
    on "$cluster-ctl" "$DTN_BIN/dtn-cluster" join - >/dev/null 2>&1 ||
    not_ok "the cluster joins the domain"
expect "who the cluster is becomes a Secret" k create secret generic dtn-cluster-identity --namespace dtn-system \
    --from-file=identity.json=/var/lib/dtn/cluster/identity.json
agents() { k rollout status --namespace dtn-system daemonset/dtn-node --timeout=1s; }
within 90 "the agents run, for they need no network" agents
for node in n1 n2; do
    agent=$(k get pods --namespace dtn-system --selector app.kubernetes.io/name=dtn-node \
        --field-selector "spec.nodeName=$node" --output name)
    join() { on "$cluster-ctl" dtnctl host invite "$node" 2>/dev/null | k exec --namespace dtn-system --stdin "$agent" -- /usr/bin/dtnctl host join -; }
    expect "$node joins the domain" join
    within 30 "and declares its NIC" declared "$node" data0
done
expect "the slice of pods without a claim" slice_up pods best_effort 1000000000 n1/data0 n2/data0
within 60 "both nodes are ready by the network that the agents brought" k wait --for=condition=Ready --timeout=1s node/n1 node/n2
controllers() { k rollout status --namespace dtn-system deployment/dtn-cluster --timeout=1s; }
within 90 "the controller runs, on the nodes' own network" controllers
{ pod p1 n1; pod p2 n2; } | k apply -f - >/dev/null
run() { k wait --for=condition=Ready --timeout=1s "$@"; }
within 60 "pods of both nodes run" run pod/p1 pod/p2
address() { k get pod "$1" --output 'jsonpath={.status.podIP}'; }
expect "one reaches the other at the address that the VDN gave" k exec p1 -- ping -c 1 -W 5 "$(address p2)"
k delete pod p1 p2 >/dev/null
within 30 "and both addresses are given back" is 0 leases pods
exit $((failures > 0))
