#!/usr/bin/env bash
# vdn-macvlan as the only network of a cluster: its pods get their addresses from a best-effort slice, by
# what the conflist says and without anything prepared, and give them back whatever happens to them.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
NETWORK=none NICS=data0 "$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 n2 || exit 1
vdnd_up && manifests_up || exit 1
for node in n1 n2; do dtnd_up $node data0=shared || exit 1; done
expect "a best-effort slice of both nodes" slice_up pods best_effort 1000000000 n1/data0 n2/data0

not_ready() { is False k get node n1 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'; }
within 20 "without a network no node is ready" not_ready
for node in n1 n2; do
    node_exec $node tee /etc/cni/net.d/10-dtn.conflist >/dev/null <<'JSON'
{"cniVersion": "1.1.0", "name": "pods", "plugins": [
  {"type": "vdn-macvlan", "mode": "bridge", "slice": "pods", "ipam": {"type": "vdn-ipam"}}]}
JSON
done
within 60 "with it both nodes are ready" k wait --for=condition=Ready --timeout=1s node/n1 node/n2

run() { k wait --for=condition=Ready --timeout=1s "$@"; }
address() { k get pod "$1" -o 'jsonpath={.status.podIP}'; }
{ pod p1 n1; pod p2 n2; pod p3 n2; } | k apply -f - >/dev/null
within 60 "pods of both nodes run" run pod/p1 pod/p2 pod/p3
expect "each has a lease" is 3 leases pods
in_slice() { [[ $(address "$1") == 10.20.* ]]; }
expect "the address that the cluster knows is the slice's" in_slice p1
expect "a pod reaches a pod of another node" k exec p1 -- ping -c 1 -W 5 "$(address p2)"
expect "a pod reaches a pod of its own node" k exec p3 -- ping -c 1 -W 5 "$(address p2)"
reaches() { node_exec "$1" busybox ping -c 1 -W 2 "$(address "$2")"; }
within 10 "the kubelet's node reaches its own pod" reaches n2 p2
# ready by the kubelet's own probes: nothing but the node itself asks
pod web n2 '[httpd, -f, -p, "8080"]' '' ', readinessProbe: {httpGet: {path: /etc/passwd, port: 8080}, periodSeconds: 1}, livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}' |
    k apply -f - >/dev/null
within 60 "the probes of the kubelet reach a pod" run pod/web
k delete pod web >/dev/null

k delete pod p1 >/dev/null
within 20 "a pod that is deleted gives its address back" is 2 leases pods
k delete pod p2 --force --grace-period=0 >/dev/null 2>&1
within 20 "so does one that is deleted by force" is 1 leases pods

# the supervisor away: what runs goes on, what is deleted goes, and the address follows
stop $cluster-n2 dtnd KILL
k delete pod p3 >/dev/null
no_pods() { is "" k get pods -o name; }
within 20 "a pod goes without a supervisor" no_pods
pod p4 n2 | k apply -f - >/dev/null
refused_for() { k get events --field-selector "involvedObject.name=$1" -o 'jsonpath={.items[*].message}' | grep -q "$2"; }
within 30 "a pod that needs one waits, and says for what" refused_for p4 'dtnd'
start_again $cluster-n2 dtnd
within 60 "it runs once there is one" run pod/p4
within 30 "what was deleted meanwhile has given its address back" is 1 leases pods

# the engine away
before=$(address p4)
stop $cluster-n2 containerd KILL
start_again $cluster-n2 containerd
wait_for 30 node_exec n2 ctr version
still_there() { run pod/p4 && is "$before" address p4; }
within 60 "a pod outlives its engine with its address" still_there
pod p5 n1 | k apply -f - >/dev/null
within 60 "and another reaches it" k exec p5 -- ping -c 1 -W 5 "$before"
k delete pod --all >/dev/null
within 30 "nothing is leased when no pod is left" is 0 leases pods
files() { node_exec "$1" sh -c 'ls /var/lib/dtn/attachments /var/lib/dtn/releases /run/dtn/prepared /run/dtn/netns | grep -v ":$" | grep .; true'; }
for node in n1 n2; do
    within 30 "no record, file or pin is left on $node" is "" files $node
    expect "nor a link on $node" is "data0 eth0 lo" node_exec $node sh -c 'ls /sys/class/net | tr "\n" " " | sed "s/ $//"'
done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
