#!/usr/bin/env bash
# The API server is away for ten minutes (AWAY, in seconds; one minute without --long): running pods keep
# what they have and data flows between them all the time, dtnd answers, and after a restart of its own too.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cluster.sh"
cluster=daejeon
: "${AWAY:=$([ "${DTN_LONG:-no}" = yes ] && echo 600 || echo 60)}"
# leases run out and are renewed several times while it is away
LEASE=2m two_nodes || exit 1
{
    claim whole dedicated 'slice: whole'
    claim part shared 'slice: parts, rate: 100Mbit' 100M
} | k apply -f - >/dev/null
{ claiming a n1 whole; claiming b n1 part; claiming c n2 whole; claiming d n2 part; } | k apply -f - >/dev/null
within 90 "four pods run" ready pod/a pod/b pod/c pod/d
was=$(identity) had=$(addresses a b c d)
there=$(address c)
k exec c -- iperf3 --server --daemon
k exec a -- sh -c "iperf3 --client $there --time $((AWAY + 3600)) --bitrate 20M --interval 1 --forceflush >/tmp/flow 2>&1 &"
# how a node sees its pods without an API server: by dtnd
answers() { node_exec "$1" dtnctl nics; }
prepared() { metric "$1" 'dtn_kubernetes_claims{state="prepared"}'; }
sent() { metric "$1" 'dtn_attachment_sent_bytes_total{pod="a",ifname="data0"}'; }

stop $cluster-ctl apiserver KILL
echo "the API server is away for $AWAY s"
end=$((SECONDS + AWAY)) looks=0 well=0 last=0
while ((SECONDS < end)); do
    sleep 5
    looks=$((looks + 1)) now=$(sent n1)
    if answers n1 >/dev/null 2>&1 && answers n2 >/dev/null 2>&1 && is 2 prepared n1 >/dev/null && is 2 prepared n2 >/dev/null; then
        # a supervisor that has just started counts what the kernel counts: it never goes back
        ((${now:-0} <= last)) || well=$((well + 1))
        last=${now:-$last}
    fi
    # half-way, both supervisors die
    if ((end - SECONDS < AWAY / 2)) && [ -z "${killed:-}" ]; then
        killed=yes
        for node in n1 n2; do stop $cluster-$node dtnd KILL; start_again $cluster-$node dtnd; done
        for node in n1 n2; do within 30 "dtnd of $node starts without an API server" answers $node; done
    fi
done
expect "at each of $looks looks both supervisors answered, all claims were prepared and data had moved" is $looks echo $well
said() { node_exec n1 dtnctl status | grep -i kubernetes; }
expect "status says what is missing" said
expect "no lease ran out" is 0 metric n1 'dtn_leases_expired{}'
expect "every lease is kept" is 2 leases whole

start_again $cluster-ctl apiserver
within 60 "the API server is back" k get --raw /readyz
for node in n1 n2; do within 90 "node $node is ready" k wait --for=condition=Ready --timeout=1s node/$node; done
within 60 "the pods are ready" ready pod/a pod/b pod/c pod/d
expect "they are the same containers, started once" is "$was" identity
expect "they have the addresses that they had" is "$had" addresses a b c d
told() { k exec a -- cat /tmp/flow; }
seconds() { (($(told | grep -c 'bits/sec') >= AWAY)) || { told | tail -n 3; return 1; }; }
expect "the transfer has gone on through all of it" seconds
gaps() { told | grep -c ' 0.00 bits/sec'; true; }
expect "and no second of it was without data" is 0 gaps
for node in n1 n2; do within 60 "$node is published again" is 1 metric $node 'dtn_kubernetes_publishing{}'; done
k delete pod a c --wait=false >/dev/null
for node in n1 n2; do within 60 "the NIC of $node is home" home $node; done
claiming e n1 whole | k apply -f - >/dev/null
within 90 "and a new pod has it" ready pod/e
k delete pod b d e --wait=false >/dev/null
none() { is 0 leases whole && is 0 leases parts; }
within 60 "no lease is left" none
for node in n1 n2; do within 60 "no record, file or pin is left on $node" is "" files $node; done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
