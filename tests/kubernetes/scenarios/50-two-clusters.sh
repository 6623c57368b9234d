#!/usr/bin/env bash
# Two clusters that know nothing of each other, each in its own domain: the domains are federated, a slice
# goes from a NIC of one to a NIC of the other, and pods of both move data through it.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
up() {
    cluster=$1
    "$top/tests/kubernetes/up.sh" "$cluster" "$2" n1 || return
    PEER=$3 vdnd_up && manifests_up || return
    node_exec n1 /opt/cni/bin/vdn-chain install >/dev/null && dtnd_up n1 data0=dedicated data1=shared && controller_up
}
for wish in 'daejeon 10.210.0 busan' 'busan 10.211.0 daejeon'; do
    # shellcheck disable=SC2086 # words of their own
    up $wish || exit 1
done
cluster=daejeon
expect "the domains are federated" federate busan
expect "a slice is reserved from one to the other" node_exec n1 dtnctl slice reserve lhc --rate 500Mbit --to busan/n1/data0 --via wan --device data0

ready() { k wait --for=condition=Ready --timeout=1s "$@"; }
address() { k exec "$1" -- ip -4 -o addr show dev data0 | awk '{sub("/.*", "", $4); print $4}'; }
for cluster in daejeon busan; do
    { claim lhc dedicated 'slice: lhc'; claiming mover n1 lhc; } | k apply -f - >/dev/null
done
for cluster in daejeon busan; do within 60 "the pod of $cluster runs" ready pod/mover; done
cluster=busan
there=$(address mover)
k exec mover -- iperf3 --server --daemon
cluster=daejeon
expect "a pod of one cluster reaches a pod of the other" k exec mover -- ping -c 1 -W 5 "$there"
measured=$(k exec mover -- iperf3 --json --time 3 --client "$there" | jq '.end.sum_received.bits_per_second / 1000000 | floor')
echo "daejeon to busan: ${measured:-no} Mbit/s of 500"
moves() { [ "${measured:-0}" -gt 50 ] && [ "$measured" -le 500 ]; }
expect "data goes through the slice, and no faster than was reserved" moves

# a file the other way, and what it is when it has arrived
sum() { sed 's/ .*//'; }
cluster=busan
k exec mover -- sh -c 'dd if=/dev/urandom of=/tmp/file bs=1M count=64 2>/dev/null; httpd -p 8080 -h /tmp'
sent=$(k exec mover -- sha256sum /tmp/file | sum)
cluster=daejeon
arrived() { k exec mover -- sh -c "wget -q -O - http://$there:8080/file | sha256sum" | sum; }
expect "a file arrives as it was" is "$sent" arrived

for cluster in daejeon busan; do
    k delete pod mover --wait=false >/dev/null
    within 30 "no lease is left in $cluster" is 0 leases lhc
    home() { node_exec n1 test -e /sys/class/net/data0; }
    within 30 "the NIC of $cluster is home" home
done
for cluster in daejeon busan; do "$top/tests/kubernetes/down.sh" $cluster; done
exit $((failures > 0))
