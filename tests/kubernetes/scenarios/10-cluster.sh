#!/usr/bin/env bash
# A cluster as such: pods on two nodes reach each other over the reference network, a pod reaches the API
# with its service account, and a node is let do what is a node's and no more.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
began=$SECONDS
"$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 n2 || exit 1
echo "up after $((SECONDS - began)) s"

{ pod p1 n1; pod p2 n2; } | k apply -f - >/dev/null
within 60 "two pods run" k wait --for=condition=Ready --timeout=1s pod/p1 pod/p2
address() { k get pod "$1" -o "jsonpath={.status.podIP}"; }
expect "a pod reaches a pod of another node" k exec p1 -- ping -c 1 -W 5 "$(address p2)"
# busybox speaks no TLS that the server takes: the node's curl goes into the pod's network for it
in_pod_network() {
    # shellcheck disable=SC2016 # expanded there
    node_exec n1 sh -c 'cd /run/netns && for name in *; do nsenter --net="$name" ip -o addr | grep -q "$0/" && exec nsenter --net="$name" "$@"; done' \
        "$(address p1)" "$@"
}
asks_api() {
    local token
    token=$(k exec p1 -- cat /var/run/secrets/kubernetes.io/serviceaccount/token) || return
    # shellcheck disable=SC2016 # expanded in the pod
    in_pod_network curl --silent --show-error --fail-with-body --max-time 10 --header "Authorization: Bearer $token" \
        --cacert "$DTN_WORK/$cluster-ctl/pki/apiserver.crt" \
        "https://$(k exec p1 -- sh -c 'echo "$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT"')/api"
}
expect "a pod reaches the API as its service account" asks_api
expect "the authority that pods are given is the API server's" node_exec n1 curl --silent --fail \
    --cacert "$DTN_WORK/$cluster-ctl/pki/apiserver.crt" "https://10.110.0.1/version"
as_node() { on "$cluster-n1" kubectl --kubeconfig "$DTN_WORK/$cluster-n1/kubeconfig" "$@"; }
refused() { [[ $("$@" 2>&1) == *orbidden* ]]; }
expect "a node reads itself" as_node get node n1
expect "a node does not read everybody's secrets" refused as_node get secrets --all-namespaces
expect "a node does not change another node" refused as_node label node n2 x=y
expect "dynamic resource allocation is served" k get deviceclasses,resourceslices,resourceclaims
expect "a machine shows its own NICs and no others" is "cni0 data0 data1 eth0 lo" node_exec n1 sh -c 'ls /sys/class/net | grep -v veth | tr "\n" " " | sed "s/ $//"'

"$top/tests/kubernetes/down.sh" $cluster
expect "nothing of the cluster is left" is "" bash -c 'ls -d /run/netns/* /run/machines/* /sys/fs/cgroup/*/'"$DTN_CAPSULE"'/*/ 2>/dev/null; true'
exit $((failures > 0))
