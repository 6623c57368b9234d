#!/usr/bin/env bash
# dtnctl deploy --engine kubernetes: the transfer pod from the same template as on one machine, as an operator
# with an operator's rights, on two nodes; a tree goes from one to the other through their slice.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
[ -f "$built/dtn-transfer.tar" ] || fail "there is no image $built/dtn-transfer.tar: tests/kubernetes/run makes it"
"$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 n2 || exit 1
vdnd_up && manifests_up || exit 1
for node in n1 n2; do
    node_exec $node /opt/cni/bin/vdn-chain install || exit 1
    dtnd_up $node data0=dedicated data1=shared || exit 1
    node_exec $node ctr --namespace k8s.io images import "$built/dtn-transfer.tar" >/dev/null 2>&1 || not_ok "$node takes the image"
done
controller_up || exit 1
expect "a slice of the dedicated NICs" slice_up whole guaranteed 2000000000 n1/data0 n2/data0

# who moves data has an operator's rights in a namespace, and no more
operator=$DTN_WORK/operator.kubeconfig
k create namespace science >/dev/null
k apply -f "$top/config/kubernetes/base/operator-rbac.yaml" >/dev/null
k --namespace science create serviceaccount mover >/dev/null
k --namespace science create rolebinding mover --clusterrole=dtn-operator --serviceaccount=science:mover >/dev/null
token=$(k --namespace science create token mover)
sed "s/token: .*}}]/token: \"$token\"}}]/" "$DTN_WORK/$cluster-ctl/admin.kubeconfig" >"$operator"
# ctl VERB...: dtnctl as that operator
ctl() { on "$cluster-ctl" dtnctl "$@" --engine kubernetes --kubeconfig "$operator" --namespace science; }
deploy() {
    local name=$1 node=$2
    shift 2
    ctl deploy xrootd --name "$name" --nic dedicated --slice whole --node "$node" --templates "$top/dtn-workloads" "$@"
}
s() { k --namespace science "$@"; }

# --- nobody makes a folder on a node: it is said what to do, and it helps
refused() {
    local said
    said=$(deploy t1 n1 --timeout 20s 2>&1) && return 1
    grep 'sudo install --directory --owner 1094' <<<"$said"
}
expect "a node without the folder is told, with the command that makes it" refused
for pod in t1:n1 t2:n2; do
    node_exec "${pod#*:}" install --directory --owner 1094 --group 1094 --mode 750 "/srv/dtn/${pod%:*}/data"
done
expect "the pod is ready" deploy t1 n1 --timeout 3m
expect "the same again is success" deploy t1 n1 --timeout 1m
differs() {
    local said status
    said=$(deploy t1 n1 --diff --rate 1Gbit)
    status=$?
    grep 'parameters.rate: nothing -> 1Gbit' <<<"$said" && is 1 echo "$status"
}
expect "another request is shown field by field" differs

# --- the other end has the same key
s get secret t1-keys -o jsonpath='{.data.sss\.keytab}' | base64 --decode | on $cluster-ctl tee /run/sss.keytab >/dev/null
expect "the other pod is ready" deploy t2 n2 --key /run/sss.keytab --timeout 3m
listed() { ctl pods --json | jq -e '[.items[] | select(.phase == "running" and .interfaces[0].slice == "whole" and .interfaces[0].ips[0] != null)] | length == 2'; }
within 30 "both are listed with NIC, addresses and slice" listed
expect "there is a log" ctl pods logs t1
# shellcheck disable=SC2016 # expanded there
key_mode() { node_exec n1 sh -c 'stat -c "%a %u" /proc/$(pgrep -x xrootd | head -n 1)/root/keys/sss.keytab'; }
expect "the key is the server's alone" is "600 1094" key_mode

# --- a tree goes through the slice
address=$(s get "$(s get resourceclaims -o name -l app.kubernetes.io/instance=t2)" -o json | jq -r '[.status.devices[0].networkData.ips[] | sub("/.*"; "")][0]')
node_exec n1 sh -c 'cd /srv/dtn/t1/data/outgoing && mkdir tree && head -c 20000000 /dev/urandom >tree/large && echo hello >tree/small && chown -R 1094:1094 tree'
s exec t2 -c xrootd -- /usr/bin/dtn-mover receive --incoming /data/incoming/run-1 --into /data/received/run-1 >"$DTN_WORK/receive.log" 2>&1 &
receiver=$!
expect "a tree is sent to $address" s exec t1 -c xrootd -- /usr/bin/dtn-mover send --from /data/outgoing/tree --to "root://$address:1094//incoming/run-1" --state /data/state/run-1
wait "$receiver"
sums() { node_exec "$1" sh -c "cd $2 && sha256sum large small"; }
expect "and is the same there" is "$(sums n1 /srv/dtn/t1/data/outgoing/tree)" sums n2 /srv/dtn/t2/data/received/run-1

# --- and everything that was made goes
for pod in t1 t2; do expect "$pod is taken down" ctl undeploy $pod; done
for node in n1 n2; do within 30 "the NIC of $node is home" node_exec $node test -e /sys/class/net/data0; done
left() { s get pods,resourceclaims,resourceclaimtemplates,secrets -o name; }
within 30 "nothing is left in the namespace" is "" left
within 30 "the leases are given back" is 0 leases whole
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
