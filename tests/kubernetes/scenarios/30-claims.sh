#!/usr/bin/env bash
# Claims, behind the cluster's own network: a dedicated NIC and shares of one, negotiated before the pod,
# with data through them; what does not fit waits and says why; and nothing is left of what went wrong.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
two_nodes || exit 1
devices() { k get resourceslices -o json | jq '[.items[] | select(.spec.driver == "dtn.appliance").spec.devices[]] | length'; }
within 30 "every NIC that is given is published" is 4 devices

{
    claim whole dedicated 'slice: whole'
    claim half shared 'slice: parts, rate: 500Mbit' 500M
    claim small shared 'slice: parts, rate: 100Mbit' 100M
    claim most shared 'slice: parts, rate: 800Mbit' 800M
} | k apply -f - >/dev/null

# --- dedicated
{ claiming a n1 whole; claiming b n2 whole; } | k apply -f - >/dev/null
within 60 "pods with a NIC of their own run" ready pod/a pod/b
for pod in a b; do
    for kind in Negotiated Prepared Ready; do within 20 "the claim of $pod says $kind" is True condition $pod $kind; done
done
told() { is "$(address a)" field a '.networkData.ips[0] | sub("/.*"; "")'; }
expect "the claim tells the address that the pod has" told
expect "the NIC is not on its node any more" is "" node_exec n1 sh -c 'ls /sys/class/net | grep -x data0; true'
mtu() { k exec a -- cat /sys/class/net/data0/mtu; }
expect "it has the MTU of its slice" is 9000 mtu
expect "one reaches the other by it" k exec a -- ping -c 1 -W 5 "$(address b)"
k exec b -- iperf3 --server --daemon
rate() { k exec a -- iperf3 --json --time 3 --client "$(address b)" | jq '.end.sum_received.bits_per_second / 1000000 | floor'; }
measured=$(rate)
echo "a to b: ${measured:-no} Mbit/s of 2000"
moves() { [ "${measured:-0}" -gt 50 ]; }
expect "data goes from one to the other" moves

# --- what does not fit waits, and says for what
claiming c n1 whole | k apply -f - >/dev/null
says() { k get events -o json | jq -e --arg pod "$1" --arg words "$2" 'any(.items[]; .involvedObject.name == $pod and (.message | test($words)))'; }
within 30 "a pod for which no NIC is left is pending, and it is said" says c 'cannot allocate|unsatisfiable|not be allocated'
expect "nothing was taken for it" is Pending k get pod c -o 'jsonpath={.status.phase}'
k delete pod a --force --grace-period=0 >/dev/null 2>&1
within 60 "it runs when one was deleted by force" ready pod/c
expect "and reaches who is there" k exec c -- ping -c 1 -W 5 "$(address b)"
k delete pod b c --wait=false >/dev/null
for node in n1 n2; do within 30 "the NIC of $node is home" home $node; done
within 30 "the leases of the slice are given back" is 0 leases whole

# --- shared: two pods of a node have parts of one NIC, a third waits for the slice
{ claiming d n1 half; claiming e n2 half; } | k apply -f - >/dev/null
within 60 "pods with a share of a NIC run" ready pod/d pod/e
expect "one reaches the other by it" k exec d -- ping -c 1 -W 5 "$(address e)"
claiming f n1 most | k apply -f - >/dev/null
within 30 "a pod that wants more than the slice has left waits, and the event has the figures" says f 'parts.*(500|0\.5)'
expect "it does not run" is Pending k get pod f -o 'jsonpath={.status.phase}'
k delete pod d e --wait=false >/dev/null
within 60 "it runs when there is enough" ready pod/f

# --- everything else dies, and what runs goes on
before=$(address f)
stop $cluster-n1 dtnd KILL
expect "the address stays without a supervisor" is "$before" address f
start_again $cluster-n1 dtnd
within 30 "it comes back" node_exec n1 dtnctl nics
claiming g n2 small | k apply -f - >/dev/null
within 60 "a pod of the other node runs" ready pod/g
expect "and reaches it" k exec g -- ping -c 1 -W 5 "$before"
stop $cluster-ctl apiserver KILL
stop $cluster-n2 dtnd KILL
start_again $cluster-n2 dtnd
within 30 "a supervisor starts without an API server" node_exec n2 dtnctl nics
start_again $cluster-ctl apiserver
within 60 "the API server is back" k get --raw /readyz
k delete pod f g --wait=false >/dev/null
within 60 "the leases of that slice are given back too" is 0 leases parts

# --- over and over
rounds=8
[ "${DTN_LONG:-no}" = no ] || rounds=100
began=$SECONDS done=0
while ((done < rounds)); do
    { claiming a n1 whole; claiming d n1 half; } | k apply -f - >/dev/null || break
    wait_for 60 ready pod/a pod/d || break
    k delete pod a d --force --grace-period=0 >/dev/null 2>&1
    done=$((done + 1))
done
expect "pods are made and taken away over and over" is $rounds echo $done
echo "$done rounds of two pods in $((SECONDS - began)) s"
for node in n1 n2; do within 60 "the NIC of $node is home" home $node; done
none() { is 0 leases whole && is 0 leases parts; }
within 60 "no lease is left" none
claims() { k get resourceclaims -o name; }
within 30 "no claim is left" is "" claims
for node in n1 n2; do
    within 60 "no record, file or pin is left on $node" is "" files $node
    expect "nor a link on $node" is "cni0 data0 data1 eth0 lo" links $node
done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
