#!/usr/bin/env bash
# up.sh CLUSTER NET NODE...: brings a Kubernetes cluster up in a capsule (capsule.sh): a control plane on
# the machine CLUSTER-ctl and a kubelet with its own containerd on each machine CLUSTER-NODE. NET is the
# first three parts of its management network, as 10.210.0; each cluster has another. KUBERNETES is the
# version (1.37.2). NICS are the names of each node's data NICs (data0 data1), whose other ends are in
# the switch of the domain; NETWORK=none leaves out the pods' reference network.
set -euo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cluster=$1 net=$2
shift 2
nodes=("$@")
control=$cluster-ctl state=$DTN_WORK/$cluster-ctl
# the last that is let into the pods' subnet, so that clusters beside each other differ
third=${net%.*} third=${third#*.}
pods=10.$((third + 30))
service=10.$((third - 100)).0
read -ra nics <<<"${NICS-data0 data1}"
gates=DRAConsumableCapacity=true

# --- the networks: management, which pods' traffic is routed over too, and the domain's switch
for name in ctl switch; do
    [ ! -e "/run/netns/$cluster-$name" ] || fail "there is a cluster $cluster already: take it down first (down.sh $cluster)"
done
machine_up "$control"
ip -n "$control" link add br0 type bridge
ip -n "$control" addr add "$net.1/24" dev br0
ip -n "$control" link set br0 up
# nothing balances services here: the only one, the API server, has its address itself
ip -n "$control" addr add "$service.1/32" dev lo
on "$control" sysctl -qw net.ipv4.ip_forward=1
ip netns add "$cluster-switch"
ip -n "$cluster-switch" link add switch mtu 9000 type bridge
ip link add "$cluster" mtu 9000 type veth peer name border mtu 9000 netns "$cluster-switch"
ip link set "$cluster" master field up
ip -n "$cluster-switch" link set border master switch up
ip -n "$cluster-switch" link set switch up

# --- who may what: an administrator, and each node as itself (Node authorization)
pki=$state/pki
mkdir -p "$pki"
openssl genrsa -out "$pki/sa.key" 2048 2>/dev/null
token() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
# kubeconfig FILE USER GROUP
kubeconfig() {
    local secret
    secret=$(token)
    printf '%s,%s,%s,"%s"\n' "$secret" "$2" "$2" "$3" >>"$state/tokens.csv"
    cat >"$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://$net.1:443", certificate-authority: "$pki/apiserver.crt"}}]
users: [{name: u, user: {token: "$secret"}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
YAML
}
umask 077
kubeconfig "$state/admin.kubeconfig" admin system:masters
for node in "${nodes[@]}"; do
    mkdir -p "$DTN_WORK/$cluster-$node"
    kubeconfig "$DTN_WORK/$cluster-$node/kubeconfig" "system:node:$node" system:nodes
done
umask 022

# --- the control plane
start "$control" etcd etcd --data-dir "$state/etcd.d" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
start "$control" apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --cert-dir="$pki" --secure-port=443 \
    --advertise-address="$net.1" --token-auth-file="$state/tokens.csv" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/sa.key" --service-account-signing-key-file="$pki/sa.key" \
    --service-cluster-ip-range="$service.0/24" --allow-privileged --kubelet-preferred-address-types=InternalIP \
    --feature-gates="$gates"
wait_for 150 k get --raw /readyz || fail "the API server does not come up: see $state/apiserver.log"
start "$control" kcm kube-controller-manager --kubeconfig "$state/admin.kubeconfig" --bind-address=127.0.0.1 \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/apiserver.crt" \
    --use-service-account-credentials --leader-elect=false --feature-gates="$gates"
start "$control" scheduler kube-scheduler --kubeconfig "$state/admin.kubeconfig" --bind-address=127.0.0.1 \
    --leader-elect=false --feature-gates="$gates"

# --- the nodes
# node NAME NUMBER: its machine, cables and daemons
node() {
    local node=$1 index=$2 name=$cluster-$1 folder=$DTN_WORK/$cluster-$1 hierarchy nic cgroup file plugin
    machine_up "$name"
    cable "$node" "$index"
    ip -n "$control" route add "$pods.$index.0/24" via "$net.$index"
    for nic in "${nics[@]}"; do nic "$node" "$nic"; done

    on "$name" mkdir -p /etc/cni/net.d /opt/cni/bin
    for plugin in "$built"/cni/* "$DTN_BIN"/vdn-host-device "$DTN_BIN"/vdn-macvlan "$DTN_BIN"/vdn-chain "$DTN_BIN"/vdn-ipam; do
        [ ! -x "$plugin" ] || on "$name" ln -s "$plugin" /opt/cni/bin/
    done
    if [ "${NETWORK:-bridge}" = bridge ]; then
        on "$name" tee /etc/cni/net.d/10-cluster.conflist >/dev/null <<JSON
{"cniVersion": "1.0.0", "name": "cluster", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
  "ipam": {"type": "host-local", "subnet": "$pods.$index.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
    fi
    # no apparmor, and no oom_score_adj below that of the capsule, which needs CAP_SYS_RESOURCE
    on "$name" tee /etc/containerd/config.toml >/dev/null <<'TOML'
version = 3
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'localhost/pause:1'
TOML
    start "$name" containerd containerd
    wait_for 30 on "$name" ctr version || fail "containerd of $node does not come up: see $folder/containerd.log"
    for file in pause image; do
        on "$name" ctr --namespace k8s.io images import "$built/$file.tar" >>"$folder/containerd.log" 2>&1
    done

    # a kubelet makes no cgroup root, and a version 1 cpuset without processors takes no process
    cgroup=/$DTN_CAPSULE/$name
    for hierarchy in /sys/fs/cgroup/*/; do
        case $hierarchy in */unified/) continue ;; esac
        mkdir -p "$hierarchy$cgroup"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$hierarchy$file" ] || cat "$hierarchy$file" >"$hierarchy$DTN_CAPSULE/$file"
            [ ! -e "$hierarchy$file" ] || cat "$hierarchy$file" >"$hierarchy$cgroup/$file"
        done
    done
    cat >"$folder/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: $cgroup
failSwapOn: false
address: $net.$index
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
enforceNodeAllocatable: []
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: "100Mi"}
# what is waited for in tests
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
shutdownGracePeriod: 0s
featureGates: {${gates/=/: }}
YAML
    start "$name" kubelet kubelet --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubeconfig" \
        --hostname-override "$node" --node-ip "$net.$index"
}
index=1 pids=()
for node in "${nodes[@]}"; do
    index=$((index + 1))
    node "$node" $index &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || fail "a node does not come up"; done
if [ "${NETWORK:-bridge}" = bridge ]; then
    for node in "${nodes[@]}"; do
        wait_for 60 k wait --for=condition=Ready --timeout=1s "node/$node" ||
            fail "node $node is not ready: see $DTN_WORK/$cluster-$node/kubelet.log"
    done
fi
# without it no pod can be made
wait_for 60 k get serviceaccount default
