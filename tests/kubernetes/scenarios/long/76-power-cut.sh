#!/usr/bin/env bash
# A node loses its power: every process of it dies at once, with its namespaces and what was in memory, and
# it starts again from its disk. Its pods are given up meanwhile; NICs and leases are back.
# A veth end dies with its namespace, so that a NIC that a pod had is plugged in anew, with its address.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cluster.sh"
cluster=daejeon
two_nodes || exit 1
nics=("data0=$(mac n1 data0)" "data1=$(mac n1 data1)")
{
    claim whole dedicated 'slice: whole'
    claim part shared 'slice: parts, rate: 100Mbit' 100M
} | k apply -f - >/dev/null
{ claiming a n1 whole; claiming b n1 part; claiming c n2 whole; claiming d n2 part; } | k apply -f - >/dev/null
within 90 "four pods run" ready pod/a pod/b pod/c pod/d
there=$(address c)

power_cut n1
expect "the other node's pods run" ready pod/c pod/d
expect "with what they had" is "$there" address c
is_away() { k get node n1 -o json | jq -e '.status.conditions[] | select(.type == "Ready" and .status != "True")'; }
within 90 "the cluster notices" is_away
# what an operator says of a node that is down: its pods may be given up
k taint node n1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute >/dev/null
gone() { ! k get pod a && ! k get pod b; }
within 90 "its pods are given up" gone

expect "it starts again" power_back n1 2 "${nics[@]}"
k taint node n1 node.kubernetes.io/out-of-service- >/dev/null
began=$SECONDS
within 30 "dtnd is back" node_exec n1 dtnctl nics
within 30 "nothing is on record any more" is "" files n1
within 30 "the leases of its pods are given back, and those of others are not" is 1 leases whole
within 30 "of both slices" is 1 leases parts
expect "the NIC is home" home n1
echo "home after $((SECONDS - began)) s"
within 90 "the node is ready" k wait --for=condition=Ready --timeout=1s node/n1
within 30 "the kubelet knows the driver" is 1 metric n1 'dtn_kubernetes_registered{}'
within 30 "no claim is prepared" is 0 metric n1 'dtn_kubernetes_claims{state="prepared"}'
{ claiming e n1 whole; claiming f n1 part; } | k apply -f - >/dev/null
within 90 "the next pods have the NICs" ready pod/e pod/f
expect "and reach who was there" k exec e -- ping -c 1 -W 5 "$there"
k delete pod c d e f --wait=false >/dev/null
none() { is 0 leases whole && is 0 leases parts; }
within 60 "no lease is left" none
for node in n1 n2; do
    within 60 "no record, file or pin is left on $node" is "" files $node
    within 30 "nor a link on $node" is "cni0 data0 data1 eth0 lo" links $node
done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
