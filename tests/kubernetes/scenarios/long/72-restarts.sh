#!/usr/bin/env bash
# containerd and the kubelet are killed and started again under running pods: those go on untouched, with
# data between them, their claims stay prepared, and nothing is leaked when they end.
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
{ claiming a n1 whole; claiming b n1 part; claiming c n2 whole; claiming d n2 part; } | k apply -f - >/dev/null
within 90 "four pods run" ready pod/a pod/b pod/c pod/d

# what must not change: the very containers, and what they have
prepared() { for pod in a b c d; do condition "$pod" Prepared; condition "$pod" Ready; done | sort -u; }
was=$(identity) had=$(addresses a b c d)
there=$(address c)
k exec c -- iperf3 --server --daemon
# a transfer that goes on through all of it: a gap would be an interval without a byte
k exec a -- sh -c "iperf3 --client $there --time 3600 --bitrate 50M --interval 1 --forceflush >/tmp/flow 2>&1 &"
# moved: how many bytes a has sent by its data interface
moved() { k exec a -- cat /sys/class/net/data0/statistics/tx_bytes; }
flows() {
    local before after
    before=$(moved)
    sleep 2
    after=$(moved)
    ((after > before + 1000000)) || { echo "$before bytes were sent, and 2 s later $after"; return 1; }
}
expect "data goes from one to the other" flows

rounds=2
[ "${DTN_LONG:-no}" = no ] || rounds=5
for round in $(seq $rounds); do
    for program in containerd kubelet; do
        for node in n1 n2; do stop $cluster-$node $program KILL; done
        [ $program != kubelet ] || sleep 5
        for node in n1 n2; do start_again $cluster-$node $program; done
        for node in n1 n2; do
            [ $program != containerd ] || wait_for 30 node_exec $node ctr version || not_ok "containerd of $node is back"
            wait_for 60 k wait --for=condition=Ready --timeout=1s node/$node || not_ok "node $node is ready"
            wait_for 60 is 1 metric $node 'dtn_kubernetes_registered{}' || not_ok "the kubelet of $node knows the driver"
        done
        within 60 "round $round, $program: the pods are ready" ready pod/a pod/b pod/c pod/d
        within 30 "they are the same containers, started once" is "$was" identity
        # a kubelet that has just started answers for its pods once it has read them
        within 30 "they have the addresses that they had" is "$had" addresses a b c d
        expect "their claims say that they are prepared and ready" is True prepared
        for node in n1 n2; do expect "two claims are prepared on $node" is 2 metric $node 'dtn_kubernetes_claims{state="prepared"}'; done
        expect "data still flows" flows
    done
done
told() { k exec a -- cat /tmp/flow; }
seconds() { (($(told | grep -c 'bits/sec') > 20)) || { told | tail -n 3; return 1; }; }
expect "the transfer has gone on through all of it" seconds
gaps() { told | grep -c ' 0.00 bits/sec'; true; }
expect "and no second of it was without data" is 0 gaps

# both dead at once while a pod is deleted: what it had is home when they are back
for program in kubelet containerd; do stop $cluster-n1 $program KILL; done
k delete pod a b --force --grace-period=0 >/dev/null 2>&1
for program in containerd kubelet; do start_again $cluster-n1 $program; done
within 90 "what was deleted meanwhile is home" home n1
within 60 "and forgotten" is "" files n1
k delete pod c d --wait=false >/dev/null
none() { is 0 leases whole && is 0 leases parts; }
within 60 "no lease is left" none
for node in n1 n2; do
    within 60 "no record, file or pin is left on $node" is "" files $node
    within 30 "nor a link on $node" is "cni0 data0 data1 eth0 lo" links $node
done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
