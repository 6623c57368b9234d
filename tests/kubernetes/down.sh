#!/usr/bin/env bash
# down.sh CLUSTER: takes a cluster down while its capsule goes on: machines with all that runs on them,
# namespaces, cgroups and state. (The end of the capsule takes everything with it.)
set -euo pipefail
# shellcheck source=tests/kubernetes/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cluster=$1

for place in "/run/machines/$cluster"-*; do
    [ -d "$place" ] || continue
    name=$(basename "$place")
    machine_down "$name"
    for folder in /sys/fs/cgroup/*/"$DTN_CAPSULE/$name"; do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} +
    done
    rm -rf "${DTN_WORK:?}/$name" "$place"
done
[ ! -e "/run/netns/$cluster-switch" ] || ip netns del "$cluster-switch"
