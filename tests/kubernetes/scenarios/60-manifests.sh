#!/usr/bin/env bash
# What config/kubernetes holds, on a real cluster: every manifest is taken by the API server, the chart makes
# the same as kustomize, the policies refuse what they should, and the images that are built run: the node
# agent as a DaemonSet, the controller with a second one standing by, and a pod that gets its NIC by them.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../cluster.sh"
cluster=daejeon
"$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 n2 || exit 1
vdnd_up || exit 1
manifests=$top/config/kubernetes

# --- what the nodes need: the images, and a configuration each
for node in n1 n2; do
    node_exec $node ctr --namespace k8s.io images import "$built/dtn-node.tar" >/dev/null 2>&1 || not_ok "$node takes the agent's image"
    node_exec $node ctr --namespace k8s.io images import "$built/dtn-cluster.tar" >/dev/null 2>&1 || not_ok "$node takes the controller's image"
    class=dedicated
    [ $node = n1 ] || class=shared
    node_exec $node tee /etc/dtn/appliance.toml >/dev/null <<TOML
version = 1

[host]
name = "$node"

[kubernetes]

[[nic]]
name = "data0"
class = "$class"
speed = "10Gbit"
TOML
done

# --- what the API server says of the manifests
expect "the base is applied" k apply --server-side --kustomize "$manifests/base"
expect "and again, which changes nothing" k diff --server-side --kustomize "$manifests/base"
# who the cluster is in the domain, for the controller
on "$cluster-ctl" dtnctl cluster invite $cluster 2>/dev/null |
    on "$cluster-ctl" "$DTN_BIN/dtn-cluster" join - >/dev/null 2>&1 ||
    not_ok "the cluster joins the domain"
expect "who the cluster is becomes a Secret" k create secret generic dtn-cluster-identity --namespace dtn-system \
    --from-file=identity.json=/var/lib/dtn/cluster/identity.json
multus_names >/dev/null || not_ok "what Multus calls a network is known"

# as the API server would store it, without what it adds by itself and the order of what has names; helm
# leaves the namespace to who calls it
stored() {
    k apply --server-side --dry-run=server --output json -f - | jq -S '
        [.items[] | select(.kind != "Namespace")
            | del(.status, .metadata["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation", "annotations"])]
        | sort_by(.kind, .metadata.namespace, .metadata.name)
        | walk(if type == "array" and all(.[]; type == "object" and has("name")) then sort_by(.name) else . end)'
}
same() {
    local overlay=$1
    shift
    diff <(k kustomize "$manifests/$overlay" | stored) \
        <("$built/chart/chart" "$KUBERNETES" dtn-system "$manifests/chart" "$@" 2>/dev/null | stored)
}
expect "the chart makes what the base is" same base
expect "and with network=chained the overlay of it" same overlays/chained network=chained
expect "and with network=only the overlay of it" same overlays/only-network network=only onlyNetwork.apiServer.host=192.0.2.1
expect "and with multus.enabled the overlay of it" same overlays/multus multus.enabled=true
elsewhere() { "$built/chart/chart" "$KUBERNETES" site "$manifests/chart" node.kubeletDir=/opt/kubelet 2>/dev/null; }
nothing_of() { ! elsewhere | grep -n "$1"; }
expect "another namespace is the only one that is named then" nothing_of dtn-system
expect "and so is another folder of the kubelet" nothing_of /var/lib/kubelet
# says WORDS COMMAND...: the command fails, and says these words
says() {
    local words=$1 said
    shift
    if said=$("$@" 2>&1); then echo "it was taken: $said" && return 1; fi
    grep -qF -- "$words" <<<"$said" || { echo "$said" && return 1; }
}
unknown_network() { says 'must be one of' "$built/chart/chart" "$KUBERNETES" dtn-system "$manifests/chart" network=other; }
expect "a network that the chart does not know is refused" unknown_network
unknown_value() { says "'netwrok' not allowed" "$built/chart/chart" "$KUBERNETES" dtn-system "$manifests/chart" netwrok=chained; }
expect "and so is a value that it has not" unknown_value
no_server() { says 'say where the API server is' "$built/chart/chart" "$KUBERNETES" dtn-system "$manifests/chart" network=only; }
expect "and an only network without an API server" no_server

# its first block of YAML is a claim and a pod
example() { awk '/^```yaml$/ {inside = 1; next} /^```$/ {if (inside) exit} inside' "$top/docs/kubernetes.md"; }
expect "what the documentation shows is taken" k apply --server-side --dry-run=server -f <(example)

# --- what is refused before anybody has to look at it
claim() {
    printf 'apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: %s}\nspec:\n  devices:\n' "$1"
    printf '    requests: [{name: nic, exactly: {deviceClassName: dtn-%s}}]\n' "$2"
    printf '    config: [{opaque: {driver: dtn.appliance, parameters: {%s}}}]\n' "${3:-apiVersion: dtn.appliance/v1, kind: InterfaceRequest}"
}
# told WORDS PARAMETERS: a claim with these is refused with those words
told() { says "$1" k create -f <(claim wrong shared "$2"); }
right='apiVersion: dtn.appliance/v1, kind: InterfaceRequest'
within 20 "a parameter that is not known is named" told 'not known: sliec' "$right, sliec: lhc"
expect "a version that is not" told 'have apiVersion dtn.appliance/v1' 'kind: InterfaceRequest'
expect "a rate of no slice is refused" told 'belong to a slice' "$right, rate: 1Gbit"
expect "and the pod's own interface" told 'choose another' "$right, interface: eth0"
expect "what is right is taken" k create -f <(claim right shared "$right, slice: lhc, rate: 1Gbit")
k delete resourceclaim right >/dev/null

# an agent speaks for its node: nic_of TOKEN'S-NODE SLICE'S-NODE
nic_of() {
    local token
    token=$(k create token dtn-node --namespace dtn-system --bound-object-kind Node --bound-object-name "$1") || return
    on "$cluster-ctl" kubectl --server https://10.210.0.1 --insecure-skip-tls-verify --token "$token" \
        apply --server-side --dry-run=server -f - <<YAML
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: probe}
spec: {driver: dtn.appliance, nodeName: $2, pool: {name: $2, generation: 1, resourceSliceCount: 1}, devices: [{name: data0}]}
YAML
}
within 20 "an agent publishes NICs of its own node" nic_of n1 n1
of_another() { says 'publishes NICs of that node alone' nic_of n1 n2; }
expect "and of no other" of_another

# --- the images run
k label node n1 n2 dtn.appliance/node=true >/dev/null
expect "the agent's network is chained behind the cluster's own" k apply --server-side --kustomize "$manifests/overlays/chained"
agents() { k rollout status --namespace dtn-system daemonset/dtn-node --timeout=1s; }
within 90 "the agent runs on both nodes" agents
for node in n1 n2; do
    agent=$(k get pods --namespace dtn-system --selector app.kubernetes.io/name=dtn-node \
        --field-selector "spec.nodeName=$node" --output name)
    join() { on "$cluster-ctl" dtnctl host invite "$node" 2>/dev/null | k exec --namespace dtn-system --stdin "$agent" -- /usr/bin/dtnctl host join -; }
    expect "$node joins the domain from within its agent's pod" join
    within 30 "and declares its NIC there" declared "$node" data0
    last() { is vdn-chain node_exec "$node" jq -r '.plugins[-1].type' /etc/cni/net.d/10-cluster.conflist; }
    expect "vdn-chain is the last plugin of $node's network" last
    published() { k get resourceslices --field-selector "spec.nodeName=$node" --output jsonpath='{.items[*].spec.devices[*].name}' | grep -q data0; }
    within 30 "$node's NIC is published" published
done
controllers() { k rollout status --namespace dtn-system deployment/dtn-cluster --timeout=1s; }
within 90 "the controller runs twice" controllers
leads() { k get lease dtn-cluster --namespace dtn-system --output jsonpath='{.spec.holderIdentity}' | grep -q dtn-cluster; }
within 30 "and one of them leads" leads

# --- and a pod gets its NIC by them
expect "a slice of both" slice_up lhc guaranteed 2000000000 n1/data0 n2/data0
wants() {
    claim "$1" "$3" "$right, slice: lhc, rate: 1Gbit"
    printf -- '---\n'
    pod "$1" "$2" | sed "s/^spec:/spec:\n  resourceClaims: [{name: nic, resourceClaimName: $1}]/; s/imagePullPolicy/resources: {claims: [{name: nic}]}, imagePullPolicy/"
}
{ wants alpha n1 dedicated; wants beta n2 shared; } | k apply -f - >/dev/null
run() { k wait --for=condition=Ready --timeout=1s "$@"; }
within 60 "pods with claims run on both nodes" run pod/alpha pod/beta
[ $failures = 0 ] || k describe pods
address() { k exec "$1" -- ip -4 -o addr show dev data0 | awk '{sub("/.*", "", $4); print $4}'; }
expect "one reaches the other by the slice" k exec alpha -- ping -c 1 -W 5 "$(address beta)"

# the agent is exchanged under them
k rollout restart --namespace dtn-system daemonset/dtn-node >/dev/null
within 120 "the agents are exchanged" agents
expect "which the pods do not notice" k exec alpha -- ping -c 1 -W 5 "$(address beta)"
k delete pod alpha beta >/dev/null
back() { node_exec n1 test -e /sys/class/net/data0; }
within 30 "the NIC is back on the host" back
within 30 "and nothing is leased" is 0 leases lhc
exit $((failures > 0))
