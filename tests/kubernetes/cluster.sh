# The words that up.sh, down.sh, the scenarios and the benchmark share: machines, processes on them, and
# waiting. Sourced by bash in a capsule (capsule.sh), which sets DTN_WORK.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
built=${DTN_KUBERNETES:-$top/target/kubernetes}
: "${KUBERNETES:=1.37.2}" "${DTN_BIN:=$top/target/debug}"
PATH=$built/kubernetes-$KUBERNETES:$built/etcd:$built/containerd:$built/cni:$DTN_BIN:$PATH
export PATH KUBERNETES DTN_BIN

fail() {
    printf '%s\n' "kubernetes: $*" >&2
    exit 1
}
[ -n "${DTN_WORK:-}" ] || fail "this needs a capsule: start it with tests/kubernetes/capsule.sh FOLDER COMMAND..."

# wait_for SECONDS COMMAND...: until the command succeeds; says what it was waited for when it does not
wait_for() {
    local end=$((SECONDS + $1)) said
    shift
    until said=$("$@" 2>&1); do
        if ((SECONDS >= end)); then
            printf 'waited in vain for: %s\n%s\n' "$*" "$said" >&2
            return 1
        fi
        sleep 0.1
    done
}

# machine_up NAME: a machine in the network namespace of the same name, which is made
machine_up() {
    ip netns add "$1"
    ip -n "$1" link set lo up
    mkdir -p "/run/machines/$1" "$DTN_WORK/$1"
    nsenter --net="/run/netns/$1" unshare --mount --propagation private --uts --pid --fork --kill-child \
        "$top/tests/kubernetes/machine.sh" "$1" >"$DTN_WORK/$1/machine.log" 2>&1 </dev/null &
    wait_for 20 is_up "$1" || fail "no machine $1: $(cat "$DTN_WORK/$1/machine.log")"
}
# machine_down NAME: a power cut, and its network namespace goes too
machine_down() {
    local pillar
    pillar=$(cat "/run/machines/$1/pid") || return
    # its first process takes all others along
    kill -KILL "$pillar" 2>/dev/null || true
    wait_for 30 ended "$pillar"
    ip netns del "$1"
}
ended() { ! test -d "/proc/$1"; }
is_up() { test -s "/run/machines/$1/pid" && test -e "/proc/$(cat "/run/machines/$1/pid")/root/run/up"; }
# on MACHINE COMMAND...: runs a command there
on() {
    local pillar
    pillar=$(cat "/run/machines/$1/pid") || return
    shift
    # its root, which is not that of its mount namespace where all of this is in a chroot
    nsenter --target "$pillar" --mount --net --uts --pid --root --wd "$@"
}
# start MACHINE NAME COMMAND...: starts a process that stays, with its log in DTN_WORK/MACHINE/NAME.log
start() {
    local machine=$1 at=$DTN_WORK/$1/$2
    shift 2
    printf '%q ' "$@" >"$at.command"
    # shellcheck disable=SC2016 # expanded there
    on "$machine" sh -c 'echo $$ >"$0.pid"; exec "$@"' "$at" "$@" >>"$at.log" 2>&1 </dev/null &
}
# start_again MACHINE NAME: with the command line that it had
start_again() {
    local command
    eval "command=($(cat "$DTN_WORK/$1/$2.command"))"
    start "$1" "$2" "${command[@]}"
}
# stop MACHINE NAME [SIGNAL]: ends what was started, and waits until it has ended
stop() {
    local pid
    pid=$(cat "$DTN_WORK/$1/$2.pid") || return
    on "$1" kill -s "${3:-TERM}" "$pid" || return
    wait_for 30 gone "$1" "$pid" && rm "$DTN_WORK/$1/$2.pid"
}
gone() { ! on "$1" test -d "/proc/$2"; }

# the cluster that the words below are about
cluster=${cluster:-}
# k WORDS...: kubectl as the cluster's administrator; the cluster of $cluster
k() { on "$cluster-ctl" kubectl --kubeconfig "$DTN_WORK/$cluster-ctl/admin.kubeconfig" "$@"; }
# node_exec NODE COMMAND...: on a node of $cluster
node_exec() {
    local node=$1
    shift
    on "$cluster-$node" "$@"
}
# cable NODE NUMBER: the way of a node to the management network, where it has the address NUMBER
cable() {
    local name=$cluster-$1 control=$cluster-ctl net
    net=$(management)
    net=${net%.*}
    ip -n "$control" link del "$1" 2>/dev/null || true
    ip link add eth0 netns "$name" type veth peer name "$1" netns "$control"
    ip -n "$control" link set "$1" master br0 up
    ip -n "$name" addr add "$net.$2/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via "$net.1"
}
# power_cut NODE: all its processes die at once, and its NICs with its namespaces; its disk stays
power_cut() { machine_down "$cluster-$1"; }
# power_back NODE NUMBER NIC=MAC...: it starts again, with the same hardware addresses and what ran on it
power_back() {
    local node=$1 number=$2 name=$cluster-$1 nic program
    shift 2
    machine_up "$name"
    cable "$node" "$number"
    for nic in "$@"; do
        nic "$node" "${nic%%=*}"
        ip -n "$name" link set "${nic%%=*}" address "${nic#*=}"
    done
    for program in containerd kubelet dtnd; do
        start_again "$name" $program
        [ $program != containerd ] || wait_for 30 on "$name" ctr version || return
    done
}
# two_nodes: what most scenarios begin with, behind the cluster's own network: the nodes n1 and n2, each with a
# dedicated NIC in the slice "whole" and a shared one in the slice "parts". LEASE is how long a lease is good.
two_nodes() {
    local node
    "$top/tests/kubernetes/up.sh" "$cluster" 10.210.0 n1 n2 || return
    vdnd_up && manifests_up || return
    for node in n1 n2; do
        node_exec $node /opt/cni/bin/vdn-chain install || return
        dtnd_up $node data0=dedicated data1=shared || return
    done
    controller_up || return
    expect "a slice of the dedicated NICs" slice_up whole guaranteed 2000000000 n1/data0 n2/data0
    expect "a slice of the shared NICs" slice_up parts guaranteed 1000000000 n1/data1 n2/data1
}
# identity: the very containers of all pods, and how often they were started
identity() { k get pods -o json | jq -c '[.items[] | {(.metadata.name): .status.containerStatuses[0] | [.containerID, .restartCount]}] | add'; }
# addresses POD...: what they have
addresses() {
    local pod
    for pod in "$@"; do echo "$pod $(address "$pod")"; done
}
# mac NODE NIC: its hardware address
mac() { node_exec "$1" cat "/sys/class/net/$2/address"; }
# nic NODE NAME [MTU]: plugs a NIC of a node into the domain's switch, anew when it was plugged in
nic() {
    local peer=$1-$2
    ip -n "$cluster-switch" link del "$peer" 2>/dev/null || true
    ip -n "$cluster-switch" link add "$peer" mtu "${3:-9000}" type veth peer name "$2" mtu "${3:-9000}" netns "$cluster-$1"
    ip -n "$cluster-switch" link set "$peer" master switch up
    ip -n "$cluster-$1" link set "$2" up
}

# --- the appliance: one domain with its controller on CLUSTER-ctl, and a supervisor on each node

# the address of $cluster's control plane, and what its domain's own addresses are told by: 10.N.0.0/16
management() { on "$cluster-ctl" ip -4 -o addr show dev br0 | awk '{sub("/.*", "", $4); print $4}'; }
domain_number() { management | awk -F . '{print $2 - 190}'; }
# vdnd_up: the domain $cluster; its slices have addresses of their own. PEER is the domain that a link leads to
vdnd_up() {
    local control=$cluster-ctl net third border=
    [ -z "${PEER:-}" ] ||
        printf -v border '[[border]]\nname = "wan"\npeer-domain = "%s"\ncapacity = "1Gbit"\nlatency = "5ms"\nmtu = 9000\n' "$PEER"
    net=$(management)
    third=$(domain_number)
    on "$control" tee /etc/dtn/appliance.toml >/dev/null <<TOML
version = 1

[domain]
name = "$cluster"

[listen]
address = "$net:8443"
$border
[addresses]
ipv4 = "10.$third.0.0/16"
ipv6 = "fd00:$third::/48"
lease = "${LEASE:-1h}"
TOML
    start "$control" vdnd "$DTN_BIN/vdnd"
    wait_for 30 on "$control" dtnctl domain list
}
# manifests_up: what the project's manifests say that a cluster needs besides the daemons themselves: device
# classes, rights, and the policy on claims. The daemons run as services of their machines here.
manifests_up() {
    local base=$top/config/kubernetes/base part files=()
    for part in namespace deviceclasses node-rbac node-policy controller-rbac claim-policy; do files+=(-f "$base/$part.yaml"); done
    k apply "${files[@]}" >/dev/null || fail "the manifests cannot be applied"
    for part in dtn-node dtn-cluster; do
        k --namespace dtn-system get serviceaccount $part >/dev/null 2>&1 ||
            k --namespace dtn-system create serviceaccount $part >/dev/null || fail "there is no service account $part"
    done
}
# multus_names: what Multus calls a network, as its own deployment brings it
multus_names() {
    k apply -f - >/dev/null <<'YAML' || return
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: network-attachment-definitions.k8s.cni.cncf.io}
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names: {plural: network-attachment-definitions, singular: network-attachment-definition, kind: NetworkAttachmentDefinition}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {config: {type: string}}}}}}
YAML
    k wait --for=condition=Established --timeout=20s crd/network-attachment-definitions.k8s.cni.cncf.io
}
# service_account NAME FILE [WORD...]: a kubeconfig of a service account of dtn-system, by a token of an hour
service_account() {
    local name=$1 file=$2 token
    shift 2
    token=$(k --namespace dtn-system create token "$name" "$@") || return
    sed "s/token: .*}}]/token: \"$token\"}}]/" "$DTN_WORK/$cluster-ctl/admin.kubeconfig" >"$file"
}
# dtnd_up NODE NIC=CLASS...: the supervisor of a node, with these NICs, in the domain, as its kubelet's driver
dtnd_up() {
    local node=$1 nic config=$DTN_WORK/$cluster-$1/dtnd.kubeconfig
    shift
    # bound to its node, as the token of a DaemonSet's pod is
    service_account dtn-node "$config" --bound-object-kind Node --bound-object-name "$node" || fail "no token for dtnd of $node"
    {
        printf 'version = 1\n\n[host]\nname = "%s"\n' "$node"
        for nic in "$@"; do
            printf '\n[[nic]]\nname = "%s"\nclass = "%s"\nspeed = "10Gbit"\nshare-with = "federation"\n' "${nic%=*}" "${nic#*=}"
        done
        printf '\n[kubernetes]\nkubeconfig = "%s"\n' "$config"
    } | node_exec "$node" tee /etc/dtn/appliance.toml >/dev/null
    start "$cluster-$node" dtnd "$DTN_BIN/dtnd"
    wait_for 30 node_exec "$node" dtnctl nics || fail "dtnd of $node does not come up: $(tail -n 5 "$DTN_WORK/$cluster-$node/dtnd.log")"
    on "$cluster-ctl" dtnctl host invite "$node" 2>/dev/null | node_exec "$node" dtnctl host join - >/dev/null 2>&1 ||
        fail "$node cannot join: $(node_exec "$node" dtnctl status 2>&1)"
    wait_for 30 declared "$node" "${1%=*}"
}
# controller_up: the cluster's own controller, which negotiates for claims
controller_up() {
    local control=$cluster-ctl config=$DTN_WORK/$cluster-ctl/dtn-cluster.kubeconfig
    on "$control" dtnctl cluster invite "$cluster" 2>/dev/null | on "$control" "$DTN_BIN/dtn-cluster" join - >/dev/null 2>&1 ||
        fail "the cluster cannot join its domain"
    service_account dtn-cluster "$config" || fail "no token for dtn-cluster"
    start "$control" dtn-cluster "$DTN_BIN/dtn-cluster" run --identity /var/lib/dtn/cluster/identity.json \
        --kubeconfig "$config" --namespace dtn-system --name "$control" --health 127.0.0.1:8090
    wait_for 30 on "$control" curl --silent --fail http://127.0.0.1:8090/readyz
}
declared() { on "$cluster-ctl" dtnctl --json host list | jq -e --arg nic "$1/$2" 'any(.items[]; .spec.node + "/" + .spec.nic == $nic)'; }
# federate OTHER: the domains $cluster and OTHER, whose controllers get a cable between them
federate() {
    local here there other=$1
    here=$(management) there=$(cluster=$other management)
    ip link add "$other" netns "$cluster-ctl" type veth peer name "$cluster" netns "$other-ctl"
    ip -n "$cluster-ctl" addr add "$here" peer "$there" dev "$other"
    ip -n "$other-ctl" addr add "$there" peer "$here" dev "$cluster"
    ip -n "$cluster-ctl" link set "$other" up
    ip -n "$other-ctl" link set "$cluster" up
    on "$cluster-ctl" dtnctl domain invite "$other" 2>/dev/null | on "$other-ctl" dtnctl domain accept - || return
    # a slice can be asked for once each has heard of the other's NICs
    wait_for 60 knows "$cluster" "$other" && wait_for 60 knows "$other" "$cluster"
}
knows() { cluster=$1 vdn GET "/domains/$2" | jq -e '.document.shared_hosts | length > 0'; }
# vdn METHOD PATH [BODY]: a call of the controller's contract, as root on its machine
vdn() {
    local key
    key=$(head -c 8 /dev/urandom | od -An -tx1 | tr -d ' \n')
    on "$cluster-ctl" curl --silent --show-error --fail-with-body --max-time 20 --unix-socket /run/dtn/vdnd.sock \
        --request "$1" --header 'Content-Type: application/json' --header "Idempotency-Key: $key" \
        ${3:+--data "$3"} "http://localhost/vdn/v1$2"
}
# slice_up NAME CLASS BPS NODE/NIC...: a slice between NICs of the domain for an hour, with addresses
slice_up() {
    local name=$1 class=$2 bps=$3 pools hosts body
    shift 3
    hosts=$(vdn GET /hosts) || return
    pools=$(vdn GET /slices | jq '.items | length + 1') || return
    body=$(jq -n --argjson hosts "$hosts" --arg name "$name" --arg class "$class" --argjson bps "$bps" \
        --arg ipv4 "10.$(domain_number).$pools.0/24" --arg ipv6 "fd00:$(domain_number):0:$pools::/64" '
        [$ARGS.positional[] as $nic | $hosts.items[] | select(.spec.node + "/" + .spec.nic == $nic) | {host: .id}] as $members |
        {name: $name, qos: {class: $class, rate_bps: $bps, mode: "hose"}, members: $members, commit: true,
         schedule: {start: (now | todate), end: (now + 3600 | todate)},
         addressing: {mtu: 9000, ipv4: {cidr: $ipv4}, ipv6: {cidr: $ipv6}}}' --args "$@")
    vdn POST /slices "$body"
}
# leases SLICE: how many leases of a slice pods have; each node has one of its own, to reach its pods
leases() {
    local id
    id=$(vdn GET "/slices" | jq -r --arg name "$1" '.items[] | select(.spec.name == $name) | .id')
    vdn GET "/slices/$id/leases" | jq '[.items[] | select(.client_id | startswith("host:") | not)] | length'
}

# ready POD...: they run
ready() { k wait --for=condition=Ready --timeout=1s "$@"; }
# field POD FILTER: of the only device of the pod's only claim
field() { k get resourceclaim "$(k get pod "$1" -o 'jsonpath={.status.resourceClaimStatuses[0].resourceClaimName}')" -o json | jq -r ".status.devices[0] | $2"; }
condition() { field "$1" ".conditions[] | select(.type == \"$2\") | .status"; }
# address POD: of its data interface
address() { k exec "$1" -- ip -4 -o addr show dev data0 | awk '{sub("/.*", "", $4); print $4}'; }
# home NODE: its NIC data0 is not in a pod
home() { node_exec "$1" test -e /sys/class/net/data0; }
# files NODE: what the appliance remembers of pods there
files() { node_exec "$1" sh -c 'cd /var/lib/dtn && ls attachments releases claims /run/dtn/prepared /run/dtn/netns 2>/dev/null | grep -v ":$" | grep .; true'; }
# links NODE: its links, but those of pods' own network
links() { node_exec "$1" sh -c 'ls /sys/class/net | grep -v veth | tr "\n" " " | sed "s/ $//"'; }
# metric NODE NAME: a value of dtnd's metrics, by what stands before it
metric() {
    node_exec "$1" curl --silent --fail --max-time 20 --unix-socket /run/dtn/dtnd.sock http://localhost/metrics |
        awk -v name="$2" 'index($0, name " ") == 1 {print $NF}'
}

# --- what scenarios say
failures=0
ok() { echo "ok: $1"; }
not_ok() {
    echo "NOT OK: $1"
    failures=$((failures + 1))
}
# expect NAME COMMAND...: the command succeeds; what it says is shown when it does not
expect() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        ok "$name"
    else
        not_ok "$name"
        printf '%s\n' "$said" | tail -n 15 | sed 's/^/    /'
    fi
}
# is WANTED COMMAND...: the command answers exactly that
is() {
    local wanted=$1 said
    shift
    said=$("$@") || return
    [ "$said" = "$wanted" ] || {
        echo "wanted $wanted, and it is: $said"
        return 1
    }
}
# within SECONDS NAME COMMAND...: the command succeeds by then
within() {
    local seconds=$1 name=$2
    shift 2
    expect "$name" wait_for "$seconds" "$@"
}
# pod NAME NODE [COMMAND [MORE]]: a pod of busybox on a node, as YAML; MORE goes into its spec
pod() {
    printf 'apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n' "$1"
    printf '  terminationGracePeriodSeconds: 0\n  nodeSelector: {kubernetes.io/hostname: %s}\n' "$2"
    printf '  containers: [{name: c, image: "localhost/busybox:1", imagePullPolicy: Never, command: %s%s}]\n%s\n---\n' \
        "${3:-[sleep, '2147483647']}" "${5:-}" "${4:-}"
}
# claim NAME CLASS PARAMETERS [BANDWIDTH]: a claim template for one NIC, as YAML
claim() {
    printf 'apiVersion: resource.k8s.io/v1\nkind: ResourceClaimTemplate\nmetadata: {name: %s}\nspec: {spec: {devices: {\n' "$1"
    printf '  requests: [{name: nic, exactly: {deviceClassName: dtn-%s%s}}],\n' "$2" "${4:+, capacity: {requests: {bandwidth: \"$4\"\}\}}"
    printf '  config: [{requests: [nic], opaque: {driver: dtn.appliance, parameters: {apiVersion: dtn.appliance/v1,\n'
    printf '    kind: InterfaceRequest%s}}}]}}}\n---\n' "${3:+, $3}"
}
# claiming NAME NODE CLAIM [COMMAND]: a pod on a node with a NIC by that template
claiming() {
    pod "$1" "$2" "${4:-}" "  resourceClaims: [{name: nic, resourceClaimTemplateName: $3}]" ', resources: {claims: [{name: nic}]}'
}
