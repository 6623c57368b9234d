#!/usr/bin/env bash
# install.sh: brings this appliance onto a machine. Run it as root; --help lists what it can do.
#
# On a host it checks a signed bundle, or builds one from this checkout, and hands over to dtn-install,
# which does the work and keeps the journal that every byte is put back from.
#
# --lab turns the machine, for a few minutes, into two simulated sites with a reserved slice between
# them and moves real files through it. Everything that the lab makes lives in one process, mount
# and network namespace and in one state folder, and is gone afterwards; what stays are Debian's
# packages, the toolchain and the build output, and they are listed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=/var/lib/dtn-lab
logs=${DTN_LOG_DIR:-/var/log/dtn-install}
# names of the packages that were added, one a line
added=$logs/added-packages
image=dtn-transfer
# a test gives programs that were built before
programs=${DTN_PROGRAMS:-$here/target/release}

# Debian's names: what the build needs, and what runs the lab. The image is made of packages that are
# fetched and unpacked, not installed.
build_packages=(gcc libc6-dev pkg-config libsystemd-dev ca-certificates)
lab_packages=(podman runc conmon catatonit iproute2 nftables util-linux procps)
toolchain_packages=(cargo-web rustc-web)
# for --fabric openflow and onos alone
switch_packages=(openvswitch-switch ethtool)

usage() {
    cat <<'TEXT'
usage: sudo ./install.sh [OPTION...]         turn this host into a DTN, or bring it to this version
       sudo ./install.sh --uninstall [--packages] [--keep-state] [--dry-run] [--yes]
                                             give the host back as it was
       sudo ./install.sh --lab [OPTION...]    two simulated sites: reserve a slice, move files, report
       sudo ./install.sh --lab --down         take down a lab that was kept with --keep
       sudo ./install.sh --build              packages, toolchain and release build, nothing else
       sudo ./install.sh --tools              packages and toolchain, nothing else
       sudo ./install.sh --bundle OUT --signing-key KEY [--arch ARCH] [--no-images]
                                             make a signed bundle for hosts without a network; for
                                             ARCH amd64 or arm64 (this machine's), built on Debian
       ./install.sh --make-key FILE           make a key to sign with: FILE, and FILE.pub to check with

Options of an installation:
  --from BUNDLE    out of this bundle; without it, built from this checkout
  --key PUBKEY     with --from: the maker's public key; nothing of the bundle runs or is unpacked before
                   its signature is checked
  --check          only look at the host, and say what stands in the way
  --dry-run        show every change and make none
  --yes            do not ask
  --tune           set buffers and rings of the host for fast paths
  --name NAME      the host's name in its domain (the machine's)
  --nic NAME[=CLASS]
                   give this NIC, dedicated or shared (those that are free, as dedicated)
  --no-nics        give no NIC yet
  --domain NAME    this host also has the controller of a domain of this name
  --no-packages    leave the distribution's packages to me
Options of --uninstall:
  --packages       remove the distribution's packages that were added, too
  --keep-state     leave /etc/dtn and /var/lib/dtn for a later installation

Options of --lab (each with its default):
  --engine ENGINE  what runs the pods: podman, or kubernetes, a real cluster at each site, which is
                   built of unmodified Kubernetes at the first time (podman)
  --kubeconfig FILE,FILE
                   clusters of yours: the lab cannot cable their nodes, and says what can be done
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

# find_go: whether there is a Go that can fetch the one that Kubernetes asks for, from 1.21 on
find_go() {
    local candidate found
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go "$here/target/kubernetes/go/bin/go"; do
        [ -x "$candidate" ] || continue
        found=$("$candidate" env GOVERSION 2>/dev/null) || continue
        if version_at_least "${found#go}" 1.21; then return 0; fi
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
        printf '%s\n' "${missing[@]}" >>"$added"
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

# kubernetes_lacks: what two clusters would not find here, each with its remedy; dtnctl looks at all of
# it again, and at more.
kubernetes_lacks() {
    local free controllers missing=() name
    (($(nproc) >= 2)) || problem "one processor, and a site's two pods ask for one each: give the machine more, or use --engine podman"
    free=$(awk '/^MemAvailable:/ {print int($2 / 1024)}' /proc/meminfo)
    ((free >= 2900)) || problem "$free MB of memory are free, and two clusters need 2900 MB: end something, or use --engine podman"
    [ -e /dev/kmsg ] || problem "there is no /dev/kmsg, where a kubelet reads what the kernel says of memory: in a container, have it given (--device /dev/kmsg)"
    controllers=$(cat /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true)
    for name in cpu cpuset memory pids; do
        if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
            [[ " $controllers " == *" $name "* ]] || missing+=("+$name")
        else
            [ -d "/sys/fs/cgroup/$name" ] || missing+=("$name")
        fi
    done
    if ((${#missing[@]} > 0)) && [ -f /sys/fs/cgroup/cgroup.controllers ]; then
        problem "a kubelet needs cgroup controllers that the root hands on to nobody: echo '${missing[*]}' | sudo tee /sys/fs/cgroup/cgroup.subtree_control"
    elif ((${#missing[@]} > 0)); then
        problem "a kubelet needs the cgroup controllers ${missing[*]}, which are not mounted below /sys/fs/cgroup: mount them, or boot with cgroups of version 2 (systemd.unified_cgroup_hierarchy=1)"
    fi
}

build() {
    # a virtual machine of one core that others share takes its time
    run_step build 10800 "$cargo" build --release --locked --manifest-path "$here/Cargo.toml" --target-dir "$here/target"
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
    local data problems=0 room need folder fabric engine given credentials
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
    engine=$(option --engine podman "$@")
    case $engine in
    podman) ;;
    kubernetes) kubernetes_lacks ;;
    *) problem "--engine $engine: is not known; write podman or kubernetes" ;;
    esac
    given=$(option --kubeconfig '' "$@")
    [ -z "$given" ] ||
        problem "--kubeconfig $given: the lab's wires and NICs end in namespaces of this machine, and no node of a cluster that is there has one of them; leave it out, and the lab brings up two clusters of its own. To join clusters of yours: docs/kubernetes.md, Installing"
    folder=$here
    room=$(df --output=avail -B1M "$folder" | tail -n 1 | tr -d ' ')
    need=$([ -x "$here/target/release/dtnctl" ] && echo 500 || echo 4000)
    # Go's modules and its cache of what is compiled are beside it
    if [ "$engine" = kubernetes ] && ! compgen -G "$here/target/kubernetes/kubernetes-*/stamp" >/dev/null; then
        need=$((need + 6000))
    fi
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
    local argument fabric engine core="" cache="" archive form
    for argument in "$@"; do
        if [ "$argument" = --down ]; then
            [ -x "$here/target/release/dtnctl" ] ||
                fail "no lab was built here: there is nothing to take down"
            exec "$here/target/release/dtnctl" lab down --state "$(option --state "$state" "$@")"
        fi
    done
    fabric=$(option --fabric edge "$@")
    if [ "$fabric" != edge ]; then lab_packages+=("${switch_packages[@]}"); fi
    engine=$(option --engine podman "$@")
    if [ "$engine" = kubernetes ]; then
        # what brings Kubernetes here, and what its first image is of; no podman
        lab_packages=(runc catatonit iproute2 nftables util-linux procps busybox-static python3)
        find_go || python3 -m pip --version >/dev/null 2>&1 || lab_packages+=(python3-pip)
    fi
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
    archive=$here/target/images/$image.tar form=--tar
    if [ "$engine" = kubernetes ]; then
        run_step kubernetes 3600 "$here/tests/kubernetes/make.sh"
        cache=", and what Go has fetched and compiled, in ${HOME:-/root}/go and ${HOME:-/root}/.cache/go-build"
        archive=$here/target/images/$image-oci.tar form=--oci
    fi
    run_step image 1800 "$here/images/build" "$image" --mover "$here/target/release/dtn-mover" \
        $form "$archive" --cache "$here/target/images/cache"
    say "stays on this machine: packages ($(sort -u "$added" 2>/dev/null | tr '\n' ' ')), $here/target, $logs$cache"
    exec "$here/target/release/dtnctl" lab run --image "$archive" "$@"
}

# known_distribution: whether there are names of packages for it. dtn-install looks closer.
known_distribution() {
    local id version
    # shellcheck source=/dev/null
    id=$(. /etc/os-release 2>/dev/null && printf '%s' "${ID:-}")
    # shellcheck source=/dev/null
    version=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_ID:-}")
    case $id-$version in
    debian-12 | debian-13 | ubuntu-22.04 | ubuntu-24.04 | rhel-9* | rocky-9* | almalinux-9*) ;;
    *) fail "this is ${id:-unknown} ${version:-of no version}: use Debian 12 or 13, Ubuntu 22.04 or 24.04, or an Enterprise Linux 9; nothing was changed" ;;
    esac
}

# The last line of a bundle: what it is, and an Ed25519 signature of the line "dtn-bundle 1 sha256 SUM"
# about all before it. Exactly so and of this length, or a changed byte could pass.
trailer_length=150
trailer_shape='^dtn-bundle 1 ed25519 [0-9a-f]{128}$'

# need_openssl: what checks Ed25519; a bare host may not have it.
need_openssl() {
    command -v openssl >/dev/null && return
    say "openssl, which checks the signature, is not here: adding it from the distribution's archive"
    if command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q install -y --no-install-recommends openssl >"$logs/openssl.log" 2>&1 || {
            apt-get -q update && apt-get -q install -y --no-install-recommends openssl
        } >>"$logs/openssl.log" 2>&1 || fail "adding openssl failed ($logs/openssl.log): install it by hand, then try again"
    else
        dnf -y -q install openssl >"$logs/openssl.log" 2>&1 ||
            fail "adding openssl failed ($logs/openssl.log): install it by hand, then try again"
    fi
    printf 'openssl\n' >>"$added"
}

# open_bundle BUNDLE KEY DIR: copies the bundle where nobody else writes, checks it, and unpacks it to
# DIR/release. Not one byte of it is believed before that.
open_bundle() {
    local bundle=$1 key=$2 work=$3 size length trailer sum
    if [ ! -f "$bundle" ] || [ ! -r "$bundle" ]; then fail "--from $bundle: cannot be read"; fi
    if [ ! -f "$key" ] || [ ! -r "$key" ]; then fail "--key $key: cannot be read"; fi
    need_openssl
    openssl pkey -pubin -in "$key" -noout -text 2>/dev/null | grep -q '^ED25519 Public-Key' ||
        fail "--key $key: is no public key of Ed25519 (PEM)"
    cp --reflink=auto "$bundle" "$work/bundle"
    size=$(stat -c %s "$work/bundle")
    length=$((size - trailer_length))
    ((length > 0)) || fail "--from $bundle: is too short for a bundle: refused"
    # a zero byte would be dropped by the shell, and the shape not be that of the file
    trailer=$(tail -c $trailer_length "$work/bundle" | tr '\000' '?')
    [[ $trailer =~ $trailer_shape ]] || fail "--from $bundle: has no signature at its end: refused"
    [ "$(tail -c 1 "$work/bundle" | od -An -tx1 | tr -d ' ')" = 0a ] ||
        fail "--from $bundle: has no signature at its end: refused"
    sum=$(head -c "$length" "$work/bundle" | sha256sum | cut -d' ' -f1)
    printf 'dtn-bundle 1 sha256 %s\n' "$sum" >"$work/claim"
    # the digits as \xAB, which printf turns into bytes
    # shellcheck disable=SC2001 # pairs of digits
    printf '%b' "$(sed 's/../\\x&/g' <<<"${trailer##* }")" >"$work/signature"
    openssl pkeyutl -verify -rawin -pubin -inkey "$key" -sigfile "$work/signature" -in "$work/claim" >/dev/null 2>&1 ||
        fail "--from $bundle: was changed, or was not signed with the key of $key: refused, and nothing of it was used"
    mkdir "$work/release"
    head -c "$length" "$work/bundle" | tar -x -C "$work/release" --no-same-owner --no-same-permissions
    rm -f "$work/bundle"
    say "the signature is good"
}

# assemble_here DIR --programs DIR [ARGUMENT...]: makes the folder of a release of what was built
assemble_here() {
    local out=$1
    shift
    CARGO=$cargo "$programs/dtn-install" assemble --checkout "$here" --out "$out" "$@"
}

# host: installs on this host. What of the options is its own it takes; the rest are dtn-install's.
host() {
    local verb=install bundle='' key='' work rc=0
    local -a words=()
    while (($# > 0)); do
        case $1 in
        --from | --key | --name | --nic | --domain)
            if [ -z "${2:-}" ]; then
                say "$1 needs a value"
                exit 2
            fi
            case $1 in
            --from) bundle=$2 ;;
            --key) key=$2 ;;
            *) words+=("$1" "$2") ;;
            esac
            shift
            ;;
        --from=*) bundle=${1#*=} ;;
        --key=*) key=${1#*=} ;;
        --check) verb=check ;;
        --dry-run | --yes | --tune | --no-nics | --no-packages | --name=* | --nic=* | --domain=*) words+=("$1") ;;
        *)
            say "the option $1 is not known; --help lists them"
            exit 2
            ;;
        esac
        shift
    done
    known_distribution
    [ -z "$bundle" ] || [ -n "$key" ] || fail "--from $bundle: needs --key PUBKEY: without the maker's key nobody knows whose it is"
    [ -n "$bundle" ] || [ -z "$key" ] || fail "--key $key: is for --from BUNDLE"
    work=$(mktemp -d /var/tmp/dtn-install.XXXXXX)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    # apart from those of a lab; what --check and --dry-run add stays in the list until an installation has
    # them in its journal, and removes it
    added=$logs/added-for-host
    if [ -n "$bundle" ]; then
        open_bundle "$bundle" "$key" "$work"
        "$work/release/libexec/dtn-install" --version >/dev/null 2>"$work/cannot" ||
            fail "the programs of the bundle do not run here ($(head -n 1 "$work/cannot")): take one that was made for this distribution and machine"
    else
        [ -f "$here/Cargo.toml" ] || fail "this is no checkout to build from: give --from BUNDLE --key PUBKEY"
        lab_packages=()
        install_packages
        build
        assemble_here "$work/release" --programs "$programs"
    fi
    if [ "$verb" = install ] && [ -s "$added" ]; then
        words+=(--added-packages "$added")
    fi
    "$work/release/libexec/dtn-install" "$verb" --release "$work/release" "${words[@]}" || rc=$?
    exit $rc
}

# uninstall: by the program that was installed, or that of this checkout
uninstall() {
    local program
    for program in /usr/libexec/dtn/dtn-install "$programs/dtn-install"; do
        if [ -x "$program" ]; then exec "$program" uninstall "$@"; fi
    done
    # the journal outlives the program when somebody has removed that
    [ ! -e /var/lib/dtn/install/journal ] ||
        fail "something is installed (/var/lib/dtn/install), and /usr/libexec/dtn/dtn-install, which takes it back, is not there: put it there again with ./install.sh --from BUNDLE --key PUBKEY, or build it in a checkout with ./install.sh --build; then try again"
    say "nothing is installed: there is no /usr/libexec/dtn/dtn-install"
}

# bundle: makes one, for machines like this one or of another architecture
bundle() {
    local out='' key='' images=yes work length signature arch machine own
    while (($# > 0)); do
        case $1 in
        --signing-key)
            key=${2:-}
            shift
            ;;
        --arch)
            arch=${2:-}
            shift
            ;;
        --no-images) images=no ;;
        -*)
            say "the option $1 is not known; --help lists them"
            exit 2
            ;;
        *) out=$1 ;;
        esac
        shift || true
    done
    [ -n "$out" ] || fail "--bundle OUT: name the file to make"
    [ -r "$key" ] || fail "--signing-key ${key:-KEY}: cannot be read; ./install.sh --make-key FILE makes one"
    [ ! -e "$out" ] || fail "$out is there already: remove it, or name another"
    own=$(dpkg --print-architecture 2>/dev/null || uname -m)
    arch=${arch:-$own}
    case $arch in
    amd64) machine=x86_64 ;;
    arm64) machine=aarch64 ;;
    "$own") machine=$(uname -m) ;;
    *) fail "--arch $arch: is not known; there are amd64 and arm64" ;;
    esac
    need_openssl
    if [ -z "${DTN_PROGRAMS:-}" ]; then
        lab_packages=()
        install_packages
        build
    else
        find_toolchain || fail "no Rust toolchain for the list of materials"
    fi
    work=$(mktemp -d /var/tmp/dtn-bundle.XXXXXX)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    local built=$programs
    local -a more=()
    if [ "$arch" != "$own" ]; then
        local -a across=("gcc-${machine/_/-}-linux-gnu" "libc6-dev-$arch-cross")
        # lists the libraries of programs that it cannot run itself
        [ $images = no ] || across+=(qemu-user-static)
        lab_packages=()
        install_packages "${across[@]}"
        CARGO=$cargo run_step "build-$arch" 10800 "$here/appliance/install/cross" "$arch"
        built=$here/target/$machine-unknown-linux-gnu/release
        more=(--machine "$machine")
    fi
    if [ $images = yes ]; then
        mkdir "$work/images"
        run_step image-transfer 1800 "$here/images/build" dtn-transfer --arch "$arch" --mover "$built/dtn-mover" --oci "$work/images/dtn-transfer.tar"
        run_step image-measure 1800 "$here/images/build" dtn-measure --arch "$arch" --oci "$work/images/dtn-measure.tar"
        more+=(--images "$work/images")
    fi
    assemble_here "$work/release" --programs "$built" "${more[@]}"
    # the same files give the same bytes
    tar -C "$work/release" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -cf "$work/bundle" .
    length=$(stat -c %s "$work/bundle")
    printf 'dtn-bundle 1 sha256 %s\n' "$(sha256sum <"$work/bundle" | cut -d' ' -f1)" >"$work/claim"
    openssl pkeyutl -sign -rawin -inkey "$key" -in "$work/claim" -out "$work/signature" ||
        fail "--signing-key $key: is no private key of Ed25519 (PEM)"
    signature=$(od -An -v -tx1 "$work/signature" | tr -d ' \n')
    printf 'dtn-bundle 1 ed25519 %s\n' "$signature" >>"$work/bundle"
    [ "$(stat -c %s "$work/bundle")" = $((length + trailer_length)) ] ||
        fail "--signing-key $key: does not sign as Ed25519 does"
    mv "$work/bundle" "$out"
    say "$out: $(numfmt --to=iec "$(stat -c %s "$out")"), for $machine with $(ldd --version | head -n 1 | grep -o '[0-9.]*$') or newer of the C library"
}

# make_key FILE: the private key for its maker alone
make_key() {
    local file=${1:-}
    [ -n "$file" ] || fail "--make-key FILE: name the file"
    if [ -e "$file" ] || [ -e "$file.pub" ]; then fail "$file is there already: a key is not written over"; fi
    (umask 077 && openssl genpkey -algorithm ed25519 -out "$file")
    openssl pkey -in "$file" -pubout -out "$file.pub"
    say "$file signs bundles, keep it; give $file.pub to the admins"
}

main() {
    local verb=${1:-}
    case $verb in
    --lab | --build | --tools | --bundle | --uninstall) shift ;;
    --make-key)
        make_key "${2:-}"
        exit 0
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    '' | -*) verb= ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
    [ "$(id -u)" = 0 ] || fail "namespaces and packages need root: run it with sudo"
    mkdir -p "$logs"
    case $verb in
    '') host "$@" ;;
    --uninstall) uninstall "$@" ;;
    --bundle) bundle "$@" ;;
    --lab) lab "$@" ;;
    --build)
        install_packages
        build
        ;;
    --tools) install_packages "$@" ;;
    esac
}

main "$@"
