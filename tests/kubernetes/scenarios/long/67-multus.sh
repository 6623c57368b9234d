#!/usr/bin/env bash
# Multus itself brings the interfaces of claims, by the definitions of the overlay multus: it finds each NIC by
# what its ResourceSlice says, and calls our plugins with it. MULTUS names its program where it is not built of
# its module.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cluster.sh"
cluster=daejeon
multus=$(realpath -m "${MULTUS:-$built/multus/multus}")
if [ ! -x "$multus" ]; then
    echo "skipped kubernetes: Multus is not to be had: its module cannot be built here, and MULTUS names no program"
    [ -z "${DTN_SKIPS:-}" ] || echo "kubernetes: Multus" >>"$DTN_SKIPS"
    exit 0
fi
"$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 n2 || exit 1
vdnd_up && manifests_up || exit 1
for node in n1 n2; do dtnd_up $node data0=dedicated data1=shared || exit 1; done
controller_up || exit 1
expect "a slice of the dedicated NICs" slice_up whole guaranteed 2000000000 n1/data0 n2/data0
expect "a slice of the shared NICs" slice_up parts guaranteed 1000000000 n1/data1 n2/data1

# --- Multus, before the cluster's own network, with rights of its own
expect "what Multus calls a network is known" multus_names
k apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: ServiceAccount
metadata: {name: multus, namespace: dtn-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: multus}
rules:
  - {apiGroups: [k8s.cni.cncf.io], resources: [network-attachment-definitions], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods/status], verbs: [update, patch]}
  - {apiGroups: [resource.k8s.io], resources: [resourceclaims, resourceslices], verbs: [get, list]}
  - {apiGroups: ["", events.k8s.io], resources: [events], verbs: [create, patch, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: multus}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: multus}
subjects: [{kind: ServiceAccount, name: multus, namespace: dtn-system}]
YAML
definitions() { k apply -f "$top/config/kubernetes/overlays/multus/networks.yaml"; }
within 20 "our definitions are taken" definitions
for node in n1 n2; do
    config=$DTN_WORK/$cluster-$node/multus.kubeconfig
    service_account multus "$config" || exit 1
    node_exec $node ln -sf "$multus" /opt/cni/bin/multus
    own=$(node_exec $node cat /etc/cni/net.d/10-cluster.conflist)
    jq -n --argjson own "$own" --arg kubeconfig "$config" '{cniVersion: $own.cniVersion, name: "multus", type: "multus",
        kubeconfig: $kubeconfig, logLevel: "verbose", logFile: "/var/log/multus.log", delegates: [$own]}' |
        node_exec $node tee /etc/cni/net.d/00-multus.conf >/dev/null
done

{
    claim whole dedicated 'slice: whole'
    claim half shared 'slice: parts, rate: 500Mbit' 500M
} | k apply -f - >/dev/null
# asks NAME NODE CLAIM NETWORKS: a pod with a claim, whose interface Multus is asked for
asks() { claiming "$1, annotations: {\"k8s.v1.cni.cncf.io/networks\": \"$4\"}" "$2" "$3"; }
{
    asks a n1 whole dtn-dedicated
    asks b n2 whole dtn-dedicated@data0
    asks c n1 half dtn-shared@data0
    asks d n2 half dtn-shared
    pod plain n1
} | k apply -f - >/dev/null
within 90 "pods with interfaces of both classes run, and one that asks for none" ready pod/a pod/b pod/c pod/d pod/plain
of() { k exec "$1" -- ip -4 -o addr show dev "$2" | awk '{sub("/.*", "", $4); print $4}'; }
expect "a NIC of its own is there by the name that Multus gives" k exec a -- ip link show net1
expect "and reaches one that was named" k exec a -- ping -c 1 -W 5 -I net1 "$(of b data0)"
expect "so does a share of a NIC" k exec c -- ping -c 1 -W 5 -I data0 "$(of d net1)"
only() { [ "$(k exec "$1" -- sh -c 'ls /sys/class/net | wc -l')" = "$2" ]; }
for one in a b c d; do expect "$one has the cluster's interface and its own, once" only $one 3; done
expect "who asks for none has none" only plain 2
status() { k get pod "$1" -o json | jq -r '.metadata.annotations["k8s.v1.cni.cncf.io/network-status"]' | jq -e --arg ip "$2" "$3"; }
# shellcheck disable=SC2016 # a variable of jq
expect "Multus says which address a has" status a "$(of a net1)" 'any(.[]; .interface == "net1" and any(.ips[]?; . == $ip))'
expect "and leaves the cluster's network the default" status a "" 'any(.[]; .default == true and .name != "default/dtn-dedicated")'
for one in a b c d; do within 20 "the claim of $one says Ready" is True condition $one Ready; done
slow() { node_exec n1 dtnctl --json slice show whole | jq -e '.paced | length == 1 and .[0].rate == "2Gbit"'; }
within 15 "it is paced as its slice says" slow

# --- the way back, also by force and without a supervisor
k delete pod a c --wait=false >/dev/null
within 30 "the NIC of n1 is home" home n1
k delete pod b --force --grace-period=0 >/dev/null 2>&1
within 30 "so is one of a pod that was deleted by force" home n2
stop $cluster-n2 dtnd KILL
k delete pod d --wait=false >/dev/null
gone() { ! k get pod d; }
within 30 "a pod goes without a supervisor" gone
start_again $cluster-n2 dtnd
k delete pod plain --wait=false >/dev/null
none() { is 0 leases whole && is 0 leases parts; }
within 60 "no lease is left" none
for node in n1 n2; do
    within 60 "no record, file or pin is left on $node" is "" files $node
    expect "nor a link on $node" is "cni0 data0 data1 eth0 lo" links $node
done
"$top/tests/kubernetes/down.sh" $cluster
exit $((failures > 0))
