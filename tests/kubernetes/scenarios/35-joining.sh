#!/usr/bin/env bash
# NICs that are no members of the slice that a claim asks for: they join what is open and go again, and wait
# for an operator where it is not.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
two_nodes || exit 1
ctl() { on "$cluster-ctl" dtnctl "$@"; }
# both are between the shared NICs, and the claims are for the dedicated ones
for slice in hall shut; do
    open=
    [ $slice = shut ] || open=--open
    # shellcheck disable=SC2086 # it may be nothing
    expect "slice $slice is reserved" ctl slice reserve $slice --between n1/data1,n2/data1 --rate 300Mbit --for 1h $open
done
members() { vdn GET /slices | jq -r --arg name "$1" '.items[] | select(.spec.name == $name).spec.members | length'; }
{
    claim open dedicated 'slice: hall'
    claim near shared 'slice: hall'
    claim shut dedicated 'slice: shut'
} | k apply -f - >/dev/null

{ claiming a n1 open; claiming b n2 near; } | k apply -f - >/dev/null
within 60 "a pod runs whose NIC was no member of an open slice" ready pod/a pod/b
expect "its NIC is one now" is 3 members hall
joined() { vdn GET /slices | jq -e '[.items[] | select(.spec.name == "hall").spec.members[] | select(.joined)] | length == 1'; }
expect "as one that its host let join" joined
expect "it reaches the others of the slice" k exec a -- ping -c 1 -W 5 "$(address b)"
paced() { node_exec n1 dtnctl --json slice show hall | jq -e '.paced | length == 1 and .[0].rate == "300Mbit"'; }
within 15 "and is paced to the slice's rate" paced
# refused WORDS OPTION...: dtnctl says no, in these words
refused() {
    local words=$1 said
    shift
    if said=$(ctl "$@" 2>&1); then echo "it was done: $said" && return 1; fi
    grep -q "$words" <<<"$said" || { echo "$said" && return 1; }
}
expect "nobody takes it out under its pod" refused 'holds a lease' slice leave hall n1/data0
# 9.5 of 10 Gbit/s can be booked, and 2 are by another slice
expect "what it has of its NIC is booked" refused 'has 7.2 *Gbit.* left' slice reserve most --between n1/data0,n2/data0 --rate 7400Mbit --for 1h
began=$SECONDS
k delete pod a b --wait=false >/dev/null
for node in n1 n2; do within 30 "the NIC of $node is home" home $node; done
within 30 "the leases are given back" is 0 leases hall

claiming c n1 shut | k apply -f - >/dev/null
says() { k get events -o json | jq -e --arg pod "$1" --arg words "$2" 'any(.items[]; .involvedObject.name == $pod and (.message | test($words)))'; }
within 30 "a pod whose NIC is no member of a closed slice waits, and is told what helps" \
    says c 'no member of slice shut.*dtnctl slice join shut n1/data0'
expect "it does not run" is Pending k get pod c -o 'jsonpath={.status.phase}'
expect "an operator lets the NIC in" ctl slice join shut n1/data0
within 60 "and it runs" ready pod/c
k delete pod c --wait=false >/dev/null
within 30 "the NIC is home" home n1
within 30 "the lease is given back" is 0 leases shut
expect "an operator takes it out again" ctl slice leave shut n1/data0
expect "and it is out" is 2 members shut

# two minutes after its last lease, less what has passed
if [ "${DTN_LONG:-no}" = yes ]; then
    within $((150 - (SECONDS - began))) "the NIC that joined has left by itself" is 2 members hall
fi
for node in n1 n2; do
    within 60 "no record, file or pin is left on $node" is "" files $node
done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
