#!/usr/bin/env bash
# capsule.sh WORK COMMAND...: runs a command in mount, process and network namespaces of its own, where
# clusters are brought up (up.sh). When it ends, however it ends, every process, mount, link and
# namespace of it ends too; the cgroups are taken away here. Needs root. WORK is an empty folder that the
# caller makes and takes away; state, logs and kubeconfigs are in it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# in the namespaces: the places that are not the machine's
furnish() {
    "$here/../own-root"
    mount -t tmpfs -o mode=755 capsule /run
    mkdir /run/cgroup /run/lock /run/machines /run/netns
    mount --rbind /sys/fs/cgroup /run/cgroup
    # a /sys shows the NICs of the network namespace that it is mounted in
    mount -t sysfs sysfs /sys
    mount --rbind /run/cgroup /sys/fs/cgroup
    umount --recursive --lazy /run/cgroup
    ip link set lo up
    # what every domain's switch is plugged into: the wide area
    ip link add field mtu 9000 type bridge
    ip link set field up
}

if [ "${1:-}" = --inside ]; then
    shift
    furnish
    "$@"
    exit
fi

work=$(realpath "$1")
shift
name=dtn-kubernetes-$$
sweep() {
    local folder _
    for folder in /sys/fs/cgroup/*/; do
        # a process that was killed leaves its cgroup a moment later
        for _ in $(seq 50); do
            [ -d "$folder$1" ] || break
            find "$folder$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
    done
}
# what one that was killed has left
for folder in /sys/fs/cgroup/*/dtn-kubernetes-*; do
    of=${folder##*-}
    [ ! -d "$folder" ] || [ -d "/proc/$of" ] || sweep "dtn-kubernetes-$of"
done
trap 'sweep "$name"' EXIT
export DTN_CAPSULE=$name DTN_WORK=$work
# pdeathsig: the capsule ends with this script, even when that is killed
setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --net --mount-proc \
    "$here/capsule.sh" --inside "$@"
