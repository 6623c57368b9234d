# shellcheck shell=bash disable=SC2154
# A Debian host with systemd as its first process, in namespaces of its own, on a tmpfs. Sourced by
# tests/machine/install inside of a PID and mount namespace, so that nothing outlives the test.
#   $cache  where tests/machine/bare has put SUITE.tar and SUITE.repo
#   $work   a folder of the test
#   $root   the host's root

# unpack SUITE: a bare host in $root, whose one archive is a folder
unpack() {
    mkdir -p "$root"
    mount -t tmpfs -o mode=755 dtn-machine "$root"
    tar -C "$root" -xf "$cache/$1.tar" --exclude='./dev/*'
    mkdir "$root/repo" "$root/media-in"
    mount --bind -o ro "$cache/$1.repo" "$root/repo"
    mount --bind "$work/in" "$root/media-in"
    rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
    printf 'deb [trusted=yes] file:/repo ./\n' >"$root/etc/apt/sources.list"
    printf 'dtn1\n' >"$root/etc/hostname"
}

# boot: starts it, and waits until it is up. It has a data NIC whose other end is the test's.
boot() {
    local waited=0
    SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --boot --directory="$root" --register=no --keep-unit \
        --private-network --capability=all --console=read-only --link-journal=no \
        >>"$work/boot.log" 2>&1 </dev/null &
    nspawn=$!
    leader=
    until [ -n "$leader" ] && inside systemctl is-system-running 2>/dev/null | grep -qE '^(running|degraded)$'; do
        sleep 0.1
        waited=$((waited + 1))
        if ((waited > 600)) || ! kill -0 "$nspawn" 2>/dev/null; then
            echo "the host does not come up:" >&2
            tail -n 20 "$work/boot.log" >&2
            return 1
        fi
        leader=$(pgrep -P "$nspawn" | head -n 1 || true)
    done
    # the one of an earlier boot goes with its namespace, a moment after its last process
    waited=0
    until ip link add data0 type veth peer name far0 2>/dev/null; do
        ip link del far0 2>/dev/null || true
        sleep 0.1
        waited=$((waited + 1))
        ((waited < 100)) || return 1
    done
    ip link set far0 up
    ip link set data0 netns "$leader"
    inside ip link set data0 up
}

# shut: ends it, as an admin would
shut() {
    inside systemctl poweroff >/dev/null 2>&1 || true
    wait "$nspawn" || true
    ip link del far0 2>/dev/null || true
    leader=
}

# inside COMMAND...: runs it as root on the host
inside() {
    nsenter -t "$leader" -m -u -i -n -p -r -w -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        ${failpoint:+DTN_FAILPOINT="$failpoint"} "$@"
}

# image FILE [runs]: what is on the host, as far as it is nobody's but an installation's: path, kind, mode, owner,
# digest, attributes. Left out: what runs and logs, and the databases and caches of apt, dpkg and ld.so;
# while daemons run, also what these keep writing.
image() {
    local path
    local -a out=() but=()
    for path in proc sys dev run tmp var/tmp repo media-in var/log var/cache var/lib/apt var/lib/dpkg var/lib/systemd \
        var/lib/private etc/ld.so.cache etc/machine-id etc/.pwd.lock etc/.updated var/.updated; do
        out+=(-o -path "./$path")
    done
    [ "${2:-}" != runs ] || out+=(-o -path ./var/lib/containers -o -path ./var/lib/cni -o -path ./var/lib/dtn/probe)
    but=(\( "${out[@]:1}" \) -prune)
    (
        cd "$root" || exit 1
        find . -xdev "${but[@]}" -o -printf '%p %y %m %U:%G %l\n' | sort
        find . -xdev "${but[@]}" -o -type f -print0 | sort -z | xargs -0 sha256sum
        # it says no of files that have none
        find . -xdev "${but[@]}" -o -type f -print0 | sort -z | xargs -0 getfattr -h -d -m - 2>/dev/null || true
    ) >"$1"
}
