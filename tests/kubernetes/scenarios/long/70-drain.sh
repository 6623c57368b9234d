#!/usr/bin/env bash
# A node is drained for maintenance: what its pods had is home within 30 s, whoever runs elsewhere notices
# nothing, and the node gives its NICs again once it is let in.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cluster.sh"
cluster=daejeon
two_nodes || exit 1
{
    claim whole dedicated 'slice: whole'
    claim part shared 'slice: parts, rate: 100Mbit' 100M
} | k apply -f - >/dev/null
{
    claiming a n1 whole; claiming b n1 part; claiming c n1 part
    claiming d n2 whole; claiming e n2 part
} | k apply -f - >/dev/null
within 90 "five pods run" ready pod/a pod/b pod/c pod/d pod/e
expect "two of them have leases of the one slice" is 2 leases whole
expect "and three of the other" is 3 leases parts
before=$(address d)

began=$SECONDS
expect "the node is drained" k drain n1 --force --ignore-daemonsets --delete-emptydir-data --timeout=60s
within 30 "its NIC is home" home n1
within 30 "and no record, file or pin is left" is "" files n1
within 30 "the leases of its pods are given back, and those of others are not" is 1 leases whole
within 30 "of both slices" is 1 leases parts
took=$((SECONDS - began))
in_time() { ((took <= 30)); }
expect "all of it within 30 s" in_time
echo "drained and home after $took s"
expect "no link is left of its shares" is "cni0 data0 data1 eth0 lo" links n1
expect "who runs elsewhere has what it had" is "$before" address d
expect "and runs" ready pod/d pod/e
expect "a node that is drained offers its NICs still" is 0 metric n1 'dtn_kubernetes_devices{state="left-out"}'

claiming f n1 whole | k apply -f - >/dev/null
sleep 3
expect "nothing is put on it" is Pending k get pod f -o 'jsonpath={.status.phase}'
k uncordon n1 >/dev/null
within 60 "until it is let in again" ready pod/f
expect "and its pod reaches the other node's" k exec f -- ping -c 1 -W 5 "$before"
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
