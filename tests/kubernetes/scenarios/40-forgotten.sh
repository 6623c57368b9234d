#!/usr/bin/env bash
# What a runtime forgets comes home within 30 s: a sandbox that vanished with the kubelet dead, and a kubelet
# that lost its state. And pods without a claim have nothing to do with any of it.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
"$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 || exit 1
vdnd_up && manifests_up || exit 1
dtnd_up n1 data0=dedicated || exit 1
list=/etc/cni/net.d/10-cluster.conflist
before=$(node_exec n1 cat "$list")
chain() { node_exec n1 /opt/cni/bin/vdn-chain install "$@"; }
expect "the plugin is put into the cluster's network" chain
expect "once more is success" chain
entries() { node_exec n1 jq '[.plugins[] | select(.type == "vdn-chain")] | length' "$list"; }
expect "it is in it once" is 1 entries
k wait --for=condition=Ready --timeout=60s node/n1 >/dev/null

ready() { k wait --for=condition=Ready --timeout=1s "$@"; }
home() { node_exec n1 test -e /sys/class/net/data0; }
# without a slice nobody has to agree
claim whole dedicated '' | k apply -f - >/dev/null
claiming a n1 whole | k apply -f - >/dev/null
within 60 "a pod has the NIC" ready pod/a
expect "it is in it" k exec a -- ls /sys/class/net/data0

# --- others, with the supervisor dead and all that it keeps out of reach
stop $cluster-n1 dtnd KILL
pod other n1 | k apply -f - >/dev/null
within 60 "a pod without a claim starts without a supervisor" ready pod/other
k delete pod other >/dev/null
gone() { ! k get pod "$1"; }
within 30 "and goes" gone other
expect "the pod with the NIC has it still" k exec a -- ls /sys/class/net/data0
start_again $cluster-n1 dtnd
within 30 "the supervisor is back" node_exec n1 dtnctl nics

# --- the kubelet dead, and the sandbox of the pod gone behind everybody's back
stop $cluster-n1 kubelet KILL
record=/var/lib/dtn/attachments/$(k get pod a -o 'jsonpath={.metadata.uid}').json
netns=$(node_exec n1 jq -r '.interfaces[0].netns' "$record")
# shellcheck disable=SC2016 # expanded there
node_exec n1 sh -c 'inode=$(stat -L -c %i "$1")
    for process in /proc/[0-9]*; do
        [ "$(stat -L -c %i "$process/ns/net" 2>/dev/null)" != "$inode" ] || kill -KILL "${process#/proc/}"
    done
    umount "$1" && rm "$1"' sh "$netns"
began=$SECONDS
within 30 "the NIC is home" home
echo "home after $((SECONDS - began)) s"
expect "nothing is on record" is "" node_exec n1 sh -c 'ls /var/lib/dtn/attachments /run/dtn/netns | grep -v ":$" | grep .; true'

# --- and its state lost, while the pod is deleted by force
node_exec n1 rm -f /var/lib/kubelet/dra_manager_state
k delete pod a --force --grace-period=0 >/dev/null 2>&1
files() { node_exec n1 sh -c 'cd /var/lib/dtn && ls attachments releases claims /run/dtn/prepared /run/dtn/netns | grep -v ":$" | grep .; true'; }
within 60 "what was prepared for it is given back" is "" files
start_again $cluster-n1 kubelet
claiming b n1 whole | k apply -f - >/dev/null
within 90 "the next pod has the NIC" ready pod/b
k delete pod b >/dev/null
within 30 "it is home again" home
within 30 "and nothing is left" is "" files

expect "the plugin is taken out again" chain --remove
expect "the network's file is as it was" is "$before" node_exec n1 cat "$list"
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
