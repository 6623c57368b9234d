#!/usr/bin/env bash
# Names in a cluster whose only network is ours: CoreDNS answers for Services and their EndpointSlices on a
# node's own network, and the pods' slice leads there by a gateway, for what an access rule allows.
# shellcheck disable=SC2317 # expect calls what seems to be called by nobody
set -uo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../cluster.sh"
cluster=daejeon
NETWORK=none NICS=data0 "$top/tests/kubernetes/up.sh" $cluster 10.210.0 n1 n2 || exit 1
vdnd_up && manifests_up || exit 1
for node in n1 n2; do dtnd_up $node data0=shared || exit 1; done

# a host with two NICs, one of them in the management network
machine_up $cluster-gate
cable gate 9
nic gate data0
ip -n $cluster-ctl link add gate-ext type veth peer name ext0 netns $cluster-gate
ip -n $cluster-ctl link set gate-ext master br0 up
node_exec gate mkdir -p /opt/cni/bin
node_exec gate ln -s "$DTN_BIN/vdn-host-device" "$DTN_BIN/vdn-macvlan" /opt/cni/bin/
node_exec gate tee /etc/dtn/appliance.toml >/dev/null <<'TOML'
version = 1

[host]
name = "gate"

[[nic]]
name = "data0"
class = "shared"
speed = "10Gbit"

[[nic]]
name = "ext0"
class = "dedicated"
speed = "10Gbit"

[[gateway]]
name = "management"
inside = "data0"
outside = "ext0"
addresses = ["10.210.0.100/24"]
networks = ["10.210.0.0/24"]
nat = true
TOML
start $cluster-gate dtnd "$DTN_BIN/dtnd"
wait_for 30 node_exec gate dtnctl nics || fail "dtnd of the gateway does not come up"
join() { on "$cluster-ctl" dtnctl host invite gate 2>/dev/null | node_exec gate dtnctl host join -; }
expect "the gateway's host joins the domain" join
within 30 "and declares its NIC" declared gate data0
gateway() { vdn GET /gateways | jq -e 'any(.items[]; .name == "management")'; }
within 30 "and the gateway" gateway
expect "a slice with a way to the management network" on "$cluster-ctl" dtnctl slice reserve pods \
    --between n1/data0,n2/data0 --gateway management --class best-effort --rate 1Gbit --for 1h
for node in n1 n2; do
    node_exec $node tee /etc/cni/net.d/10-dtn.conflist >/dev/null <<'JSON'
{"cniVersion": "1.1.0", "name": "pods", "plugins": [
  {"type": "vdn-macvlan", "mode": "bridge", "slice": "pods", "ipam": {"type": "vdn-ipam"}}]}
JSON
    # who answers for names is told to the kubelet, which tells each pod
    printf 'clusterDNS: [10.210.0.2]\nclusterDomain: cluster.local\n' >>"$DTN_WORK/$cluster-$node/kubelet.yaml"
    stop $cluster-$node kubelet
    start_again $cluster-$node kubelet
done
within 60 "both nodes are ready" k wait --for=condition=Ready --timeout=1s node/n1 node/n2

k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        bind 10.210.0.2
        errors
        ready 10.210.0.2:8181
        kubernetes cluster.local
    }
---
apiVersion: v1
kind: Pod
metadata: {name: coredns, namespace: kube-system}
spec:
  serviceAccountName: coredns
  hostNetwork: true
  dnsPolicy: Default
  nodeSelector: {kubernetes.io/hostname: n1}
  containers:
  - name: coredns
    image: localhost/busybox:1
    imagePullPolicy: Never
    command: [/coredns/coredns, -conf, /etc/coredns/Corefile]
    readinessProbe: {httpGet: {host: 10.210.0.2, path: /ready, port: 8181}, periodSeconds: 1}
    volumeMounts:
    - {name: program, mountPath: /coredns}
    - {name: config, mountPath: /etc/coredns}
  volumes:
  - {name: program, hostPath: {path: "$built/coredns"}}
  - {name: config, configMap: {name: coredns}}
YAML
within 60 "CoreDNS runs, on the node's own network" k wait --namespace kube-system --for=condition=Ready --timeout=1s pod/coredns

{ pod web1 n1 '[httpd, -f, -p, "8080", -h, /etc]'; pod web2 n2 '[httpd, -f, -p, "8080", -h, /etc]'; pod asks n2; } | k apply -f - >/dev/null
k label pod web1 web2 app=web >/dev/null
k apply -f - >/dev/null <<'YAML'
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
YAML
within 60 "pods run" ready pod/web1 pod/web2 pod/asks
pod_ip() { k get pod "$1" -o 'jsonpath={.status.podIP}'; }
asked() { k exec asks -- busybox nslookup -type=a "$1" | awk '/^Name:/ {name = 1} name && /^Address/ {print $NF}' | sort; }
both() { printf '%s\n' "$(pod_ip web1)" "$(pod_ip web2)" | sort; }
expect "the pod was told who answers" k exec asks -- grep -x 'nameserver 10.210.0.2' /etc/resolv.conf
refused() { ! k exec asks -- timeout 5 busybox nslookup -type=a web.default.svc.cluster.local; }
expect "what no access rule allows does not pass, names neither" refused
expect "names are allowed" on "$cluster-ctl" dtnctl access set management 10 allow outbound --to 10.210.0.2/32 --proto udp --to-port 53
resolves() { is "$(both)" asked web.default.svc.cluster.local; }
within 20 "the name of a headless Service is the addresses of its pods" resolves
one() { k exec asks -- wget -q -O - "http://$(asked web.default.svc.cluster.local | head -n 1):8080/passwd" | grep root; }
expect "and a pod of it answers there" one
k delete pod web2 >/dev/null
left() { is "$(pod_ip web1)" asked web.default.svc.cluster.local; }
within 20 "a pod that went is answered for no more" left
k delete pod asks web1 >/dev/null
within 30 "the gateway alone has an address left" is 1 leases pods
exit $((failures > 0))
