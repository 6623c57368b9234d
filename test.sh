#!/usr/bin/env bash
# test.sh: installs what the tests need and runs them all, least powerful kind first. Run it as root.
#   --long        also the matrix of rates, MTUs and round trips, a switch without its controller for a
#                 minute, a whole machine in QEMU with its reboots and power cuts (20 minutes), a bundle for
#                 machines of another kind (15 minutes when nothing of it is built), and the check
#                 of every dependency
#   --only GROUP  that group alone
# The last line is "N passed, N failed, N skipped": groups, and single tests that this machine cannot
# run, each named above with what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

long=no only=
case ${1:-} in
'') ;;
--long) long=yes ;;
--only) only=${2:?--only needs the name of a group} ;;
*)
    echo "usage: sudo ./test.sh [--long | --only GROUP]" >&2
    exit 2
    ;;
esac
if [ "$(id -u)" != 0 ]; then
    echo "test: namespaces need root: run it with sudo" >&2
    exit 1
fi

packages=(shellcheck containernetworking-plugins ethtool iperf3 xrootd-server xrootd-client attr busybox-static openvswitch-switch tshark isc-dhcp-client python3-pip python3-jsonschema)
./install.sh --tools "${packages[@]}"
find_cargo() {
    local candidate
    for candidate in "$(command -v cargo || true)" /root/.cargo/bin/cargo \
        "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)/.cargo/bin/cargo" /usr/bin/cargo; do
        [ -x "$candidate" ] && PATH=$(dirname "$candidate"):$PATH && export PATH && return
    done
}
find_cargo
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    # Debian's toolchain has the two as packages of their own
    apt-get -q install -y --no-install-recommends rustfmt-web rust-web-clippy >/dev/null
fi

passed=0 failed=0 skipped=0
failures=()
skips=$(mktemp)
trap 'rm -f "$skips"' EXIT
export DTN_SKIPS=$skips INSTA_UPDATE=no
# what a second build of the same tree would use is 2 GB that a first one does not read
export CARGO_INCREMENTAL=0

group() {
    local name=$1 start rc=0
    shift
    [ -z "$only" ] || [ "$only" = "$name" ] || return 0
    start=$(date +%s)
    echo "=== $name"
    "$@" || rc=$?
    if ((rc == 0)); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures+=("$name")
    fi
    echo "=== $name: $([ $rc = 0 ] && echo ok || echo "FAILED with status $rc") after $(($(date +%s) - start)) s, $(room) free"
}
# room: what the disk under this folder has left: a full one fails every group after it, none by name
room() { df --output=avail --human-readable . | tail -n 1 | tr -d ' '; }

scripts=(install.sh test.sh tests/own-root tests/machine/host tests/machine/units tests/machine/install tests/machine/bare tests/machine/bare.sh tests/machine/arm64 appliance/install/cross tests/machine/qemu tests/machine/qemu.sh tests/machine/kernel tests/machine/early tests/machine/agent tests/machine/inside .ci/run images/build images/dtn-node/root/usr/libexec/dtn/install-plugins tests/lab tests/onos tests/os-ken tests/onos-core/make tests/onos-core/run tests/kubernetes/*.sh tests/kubernetes/run tests/kubernetes/bench tests/kubernetes/scenarios/*.sh tests/kubernetes/scenarios/*/*.sh tests/readme tests/lab-matrix tests/dependencies)
group format cargo fmt --all --check
group shell shellcheck -x "${scripts[@]}"
group lints cargo clippy --workspace --all-targets --locked -- -D warnings
# the one test that needs an ONOS core has a group of its own
group tests env DTN_ONOS=later cargo test --workspace --locked --no-fail-fast
# the whole workspace where one crate would do: another selection has other features, and builds libraries anew
group crash cargo test --workspace --locked --features dtn-cni/failpoints,dtn-install/failpoints --test crash --test cutoff
if [ $long = yes ]; then group onos tests/onos --long; else group onos tests/onos; fi
if [ $long = yes ]; then group kubernetes tests/kubernetes/run --long; else group kubernetes tests/kubernetes/run; fi
# with the API server that was built for that: before it they could only say that they were skipped
group apiserver cargo test --locked -p dtnd -p dtn-cluster -p dtnctl --test cluster --test negotiation --test kubernetes
group documentation env RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' cargo doc --workspace --no-deps --locked --quiet
# from here on the programs are those of a release
if [ -z "$only" ] && [ "$(df --output=avail -k . | tail -n 1)" -lt 4000000 ]; then
    echo "test: there are $(room) left: the test programs make room"
    rm -rf target/debug
fi
group build ./install.sh --build
if [ $long = yes ]; then group units tests/machine/units --long; else group units tests/machine/units; fi
if [ $long = yes ]; then group install tests/machine/install --long; else group install tests/machine/install; fi
group readme tests/readme
if [ $long = yes ]; then group lab tests/lab --long; else group lab tests/lab; fi
if [ $long = yes ] || [ -n "$only" ]; then
    group lab-matrix tests/lab-matrix
    # what takes minutes and needs no lab
    group cut-line cargo test --workspace --locked --test openflow_line -- --ignored --nocapture
    group qemu tests/machine/qemu
    group arm64 tests/machine/arm64
    group dependencies tests/dependencies
fi

# tests that could not run say so in this file, one line each
skipped=$(wc -l <"$skips")
sort "$skips" | uniq -c
((${#failures[@]} == 0)) || printf 'failed: %s\n' "${failures[@]}"
echo "$passed passed, $failed failed, $skipped skipped"
if ((passed + failed == 0)); then
    echo "test: there is no group $only" >&2
    exit 2
fi
((failed == 0))
