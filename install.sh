#!/usr/bin/env bash
# install.sh: brings this appliance onto a machine. Run it as root; --help lists what it can do.
#
# --lab turns the machine, for a few minutes, into two simulated sites with a reserved slice between
# them and moves real files through it. Everything that the lab makes lives in one process, mount
# and network namespace and in one state folder, and is gone afterwards; what stays are Debian's
# packages, the toolchain and the build output, and they are listed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=/var/lib/dtn-lab
logs=${DTN_LOG_DIR:-/var/log/dtn-install}
image=dtn-transfer

# Debian's names: what the build needs, and what runs the lab. The image is made of packages that are
# fetched and unpacked, not installed.
build_packages=(gcc libc6-dev pkg-config libsystemd-dev ca-certificates)
lab_packages=(podman runc conmon catatonit iproute2 nftables util-linux procps)
toolchain_packages=(cargo-web rustc-web)
# for --fabric openflow and onos alone
switch_packages=(openvswitch-switch ethtool)

usage() {
    cat <<'TEXT'
usage: sudo ./install.sh --lab [OPTION...]    two simulated sites: reserve a slice, move files, report
       sudo ./install.sh --lab --down         take down a lab that was kept with --keep
       sudo ./install.sh --build              packages, toolchain and release build, nothing else
       sudo ./install.sh --tools              packages and toolchain, nothing else

Options of --lab (each with its default):
  --fabric KIND    edge, where hosts enforce slices; openflow, where Open vSwitch does too; or onos,
                   where an ONOS programs Open vSwitch (edge)
  --onos URL       with --fabric onos: an ONOS of this machine for both sites, http://127.0.0.1:PORT,
                   or URL,URL (an ONOS 2.5 core with a test southbound is put together and started
                   at each site)
  --onos-credentials FILE
                   with --onos: mode 0600, one line USER:PASSWORD of an administrator (none)
  --onos-openflow PORT
                   with --onos: where it hears switches (6653)
  --wan RATE       frame rate of the wide-area link (1Gbit; with switches what they carry, at most
                   200Mbit)
  --rtt TIME       round trip over it (10ms)
  --mtu BYTES      from end to end (9000)
  --nic CLASS      dedicated or shared (dedicated)
  --nics N         data NICs per site (1)
  --rate RATE      rate of the slice (the most that the link admits)
  --min-rate RATE  take less than --rate, down to this
  --class CLASS    dedicated, guaranteed or best-effort (guaranteed)
  --data DIR       tree of files to move (/usr/share/doc)
  --large SIZE     size of the one large file (2GiB)
  --both           move in both directions
  --interrupt      kill the mover halfway and let it resume
  --report FILE    evidence as JSON; the plot is put beside it as SVG
  --keep           leave the sites up for dtnctl
  --down           take a kept lab down
  --state DIR      folder for everything the lab writes (/var/lib/dtn-lab)
TEXT
}

say() { printf '%s\n' "install: $*" >&2; }
fail() {
    printf '%s\n' "install: $*" >&2
    exit 1
}

# run_step NAME SECONDS COMMAND...: runs a long step with a deadline, its output in a log, and a line
# about once in ten seconds, so that nobody wonders whether it hangs. A failure tells $remedy, if the
# caller has one.
run_step() {
    local name=$1 deadline=$2 log start last=0 now pid rc=0
    shift 2
    log=$logs/$name.log
    start=$(date +%s)
    say "$name: started, at most $((deadline / 60)) min, log $log"
    # setpriv: the step ends with this script, even when that is killed
    setpriv --pdeathsig TERM timeout --signal=TERM --kill-after=10 "$deadline" "$@" >"$log" 2>&1 </dev/null &
    pid=$!
    # Ctrl-C ends the step and with it this script
    trap 'kill "$pid" 2>/dev/null; wait "$pid" 2>/dev/null; exit 130' INT TERM
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        now=$(($(date +%s) - start))
        if ((now - last >= 10)); then
            last=$now
            say "$name: ${now} s, $(tail -n 1 "$log" | tr -d '\r' | cut -c1-100)"
        fi
    done
    wait "$pid" || rc=$?
    trap - INT TERM
    if ((rc == 124 || rc == 137)); then
        fail "$name: not done after $deadline s and ended; the log is $log"
    elif ((rc != 0)); then
        tail -n 15 "$log" >&2
        fail "$name: failed with status $rc; the whole log is $log${remedy:+; $remedy}"
    fi
    say "$name: done in $(($(date +%s) - start)) s"
}

missing_packages() {
    local name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || printf '%s\n' "$name"
    done
}

# version_at_least HAVE WANT, as 1.96 1.95
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# find_toolchain: sets cargo to a cargo that is there and new enough. sudo hides the PATH of the
# user who called it, so that user's own toolchain is looked at as well.
find_toolchain() {
    local wanted candidate version home
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
    home=$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)
    cargo=
    for candidate in "${CARGO:-}" "$(command -v cargo || true)" /root/.cargo/bin/cargo \
        "$home/.cargo/bin/cargo" /usr/local/cargo/bin/cargo; do
        if [ -z "$candidate" ] || [ ! -x "$candidate" ]; then continue; fi
        version=$("$candidate" --version 2>/dev/null | cut -d' ' -f2) || continue
        if version_at_least "${version:-0}" "$wanted"; then
            cargo=$candidate
            PATH=$(dirname "$candidate"):$PATH
            export PATH
            return 0
        fi
        say "the toolchain $candidate is $version, and $wanted or newer is needed: looking further"
    done
    return 1
}

install_packages() {
    local -a wanted=("${build_packages[@]}" "${lab_packages[@]}")
    local -a missing
    find_toolchain || wanted+=("${toolchain_packages[@]}")
    mapfile -t missing < <(missing_packages "${wanted[@]}" "$@")
    if ((${#missing[@]} > 0)); then
        command -v apt-get >/dev/null ||
            fail "this machine has no apt-get: install by hand: ${missing[*]}"
        say "packages to add: ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        local remedy="on a machine without a network install these first: ${missing[*]}"
        # without Error-Mode a failed fetch is only a warning, and the next step fails in its stead
        run_step apt-update 600 apt-get -q -o APT::Update::Error-Mode=any update
        # podman would start its socket; the lab has its own and touches nothing of the machine's
        run_step apt-install 1800 apt-get -q install -y --no-install-recommends "${missing[@]}"
        if [[ " ${missing[*]} " == *" openvswitch-switch "* ]]; then quiet_switch; fi
        printf '%s\n' "${missing[@]}" >>"$logs/added-packages"
    fi
    find_toolchain ||
        fail "no Rust toolchain of version $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/Cargo.toml") or newer: install Debian's cargo-web and rustc-web, or one from https://rustup.rs"
}

# quiet_switch: Debian's package starts Open vSwitch and would start it at every boot. The lab runs its
# own and needs none of the machine's; one that was there before is left as it is.
quiet_switch() {
    # whatever of it does not work is seen below
    if [ -d /run/systemd/system ]; then
        systemctl disable openvswitch-switch.service ovs-record-hostname.service || true
        systemctl stop openvswitch-switch.service ovs-record-hostname.service ovs-vswitchd.service ovsdb-server.service || true
    else
        /etc/init.d/openvswitch-switch stop || true
        update-rc.d openvswitch-switch disable || true
    fi >>"$logs/apt-install.log" 2>&1
    if pgrep -F /run/openvswitch/ovs-vswitchd.pid ovs-vswitchd >/dev/null 2>&1; then
        say "the package openvswitch-switch has started a switch that is still running and that nobody here needs: /etc/init.d/openvswitch-switch stop"
    else
        say "the service openvswitch-switch, which came with its package, is stopped and will not start by itself"
    fi
}

build() {
    run_step build 2700 "$cargo" build --release --locked --manifest-path "$here/Cargo.toml" --target-dir "$here/target"
}

# option NAME DEFAULT ARGUMENT...: the value of an option among the arguments
option() {
    local name=$1 value=$2
    shift 2
    while (($# > 0)); do
        case $1 in
        "$name") value=${2:-} ;;
        "$name"=*) value=${1#*=} ;;
        esac
        shift
    done
    printf '%s' "$value"
}

# What would only fail after a long build is looked at before it; the lab itself looks at the rest.
preflight() {
    local data problems=0 room need folder fabric given credentials
    data=$(option --data /usr/share/doc "$@")
    problem() {
        say "preflight: $*"
        problems=1
    }
    if [ ! -d "$data" ]; then
        problem "--data $data: no such folder; name a folder with files in it"
    elif [ ! -r "$data" ] || [ ! -x "$data" ]; then
        problem "--data $data: cannot be read; choose another or mend its permissions"
    elif [ -z "$(find "$data" -mindepth 1 -print -quit)" ]; then
        problem "--data $data: is empty; there is nothing to move"
    fi
    fabric=$(option --fabric edge "$@")
    case $fabric in
    edge | openflow | onos) ;;
    *) problem "--fabric $fabric: is not known; write edge, openflow or onos" ;;
    esac
    folder=$here
    room=$(df --output=avail -B1M "$folder" | tail -n 1 | tr -d ' ')
    need=$([ -x "$here/target/release/dtnctl" ] && echo 500 || echo 4000)
    ((room >= need)) || problem "$folder: $room MB free, the build needs $need MB"
    given=$(option --onos '' "$@")
    credentials=$(option --onos-credentials '' "$@")
    if [ -n "$given" ] && [ "$fabric" != onos ]; then
        problem "--onos $given: is for --fabric onos alone; add that, or leave it out"
    elif [ -n "$given" ] && [ -z "$credentials" ]; then
        problem "--onos $given: needs --onos-credentials FILE, of mode 0600 with one line USER:PASSWORD of an administrator of that ONOS"
    elif [ -z "$given" ] && [ "$fabric" = onos ] && [ "$(uname -m)" != x86_64 ]; then
        problem "--fabric onos: a core needs a Java 11 runtime, which there is for x86_64 and not for $(uname -m); name an ONOS that is there with --onos"
    fi
    ((problems == 0)) || exit 1
    say "adds to this machine: Debian packages (${build_packages[*]} ${lab_packages[*]}, a Rust toolchain if there is none), the build output in $here/target, logs in $logs, and while it runs $(option --state "$state" "$@")"
}

lab() {
    local argument fabric core=
    for argument in "$@"; do
        if [ "$argument" = --down ]; then
            [ -x "$here/target/release/dtnctl" ] ||
                fail "no lab was built here: there is nothing to take down"
            exec "$here/target/release/dtnctl" lab down --state "$(option --state "$state" "$@")"
        fi
    done
    fabric=$(option --fabric edge "$@")
    if [ "$fabric" != edge ]; then lab_packages+=("${switch_packages[@]}"); fi
    if [ "$fabric" = onos ] && [ -z "$(option --onos '' "$@")" ]; then
        core=yes
        # what is there of these need not be Debian's
        command -v mvn >/dev/null || lab_packages+=(maven)
        javac --release 11 -version >/dev/null 2>&1 || lab_packages+=(default-jdk-headless)
        python3 -m pip --version >/dev/null 2>&1 || lab_packages+=(python3-pip)
    fi
    preflight "$@"
    install_packages
    build
    if [ -n "$core" ]; then run_step onos-core 1200 "$here/tests/onos-core/make" "$here/target/onos-core"; fi
    mkdir -p "$here/target/images"
    run_step image 1800 "$here/images/build" "$image" --mover "$here/target/release/dtn-mover" \
        --tar "$here/target/images/$image.tar" --cache "$here/target/images/cache"
    say "stays on this machine: packages ($(sort -u "$logs/added-packages" 2>/dev/null | tr '\n' ' ')), $here/target, $logs"
    exec "$here/target/release/dtnctl" lab run --image "$here/target/images/$image.tar" "$@"
}

main() {
    local verb=${1:-}
    case $verb in
    --lab | --build | --tools) shift ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    [ "$(id -u)" = 0 ] || fail "namespaces and packages need root: run it with sudo"
    mkdir -p "$logs"
    case $verb in
    --lab) lab "$@" ;;
    --build)
        install_packages
        build
        ;;
    --tools) install_packages "$@" ;;
    esac
}

main "$@"
