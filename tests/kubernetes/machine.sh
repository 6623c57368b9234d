#!/usr/bin/env bash
# machine.sh NAME: becomes a machine of the capsule: a root file system of its own over the real one, in
# which nothing of the appliance or of Kubernetes is there yet, in the namespaces that it was started in.
# A machine that was there before (power_cut) has its disk still: all that it wrote but what is in /run.
# Waits for ever as their first process: who enters them is on that machine, and all ends with this.
set -euo pipefail
name=$1 place=/run/machines/$1
# its number outside: /proc is not its own yet
read -r pid _ </proc/self/stat
echo "$pid" >"$place/pid"
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=$place/root
hostname "$name"
first=yes
[ ! -d "$place/upper" ] || first=no
mkdir -p "$place/upper" "$place/work" "$root"
# written to memory; the lower file system's mounts are not in it
mount -t overlay -o "lowerdir=/,upperdir=$place/upper,workdir=$place/work" machine "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir "$root/run/lock" "$root/run/netns"
for folder in etc/cni etc/dtn etc/containerd opt/cni var/lib/cni var/lib/dtn var/lib/kubelet var/lib/containerd srv/dtn; do
    [ $first = no ] || rm -rf "${root:?}/$folder"
    mkdir -p "$root/$folder"
done
# the programs, and the logs; no build may change what is below an overlay
for folder in "$top" "$DTN_WORK"; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
done
# containers' layers are overlays of their own, which need a real disk
mkdir -p "$DTN_WORK/$name/containerd" "$DTN_WORK/$name/kubelet"
mount --bind "$DTN_WORK/$name/containerd" "$root/var/lib/containerd"
mount --bind "$DTN_WORK/$name/kubelet" "$root/var/lib/kubelet"
cd "$root"
pivot_root . .
umount --lazy .
cd /
# as systemd has it, so that what is mounted for a container is seen by others
mount --make-rshared /
: >/run/up
# a shell, and not sleep alone: the first process must reap the orphans
sleep infinity &
wait
