# shellcheck shell=bash disable=SC2034,SC2154
# A machine of QEMU (TCG: no /dev/kvm is needed) with a kernel of Debian and three NICs that are PCI
# devices. Sourced by tests/machine/qemu inside of a PID and mount namespace, so that nothing outlives
# the test.
#   $cache  where tests/machine/kernel has put SUITE.vmlinuz, SUITE.initrd and SUITE.disk
#   $work   a folder of the test; $work/in.disk is /media-in of the machine

# overlay NAME BACKING [FORMAT]: a disk that begins as BACKING and leaves it as it is
overlay() {
    rm -f "$work/$1.qcow2"
    qemu-img create -q -f qcow2 -b "$2" -F "${3:-qcow2}" "$work/$1.qcow2"
}

# power_on NAME: starts the machine with this disk, and waits until it has booted. Writes of the machine
# that it did not flush may be lost when its power is cut, as on a disk with a cache of its own: the map
# of an overlay is written when the machine flushes.
power_on() {
    disk=$1
    rm -f "$work"/agent.{in,out} "$work/console"
    mkfifo "$work/agent.in" "$work/agent.out"
    exec 7<>"$work/agent.in" 8<>"$work/agent.out"
    # time of the machine goes by its instructions: on a busy host it is slow, and none of its clocks runs
    # out. A plain processor: programs that find wide registers are slow where these are made up
    nice -n 5 qemu-system-x86_64 -machine pc -accel tcg,thread=single,tb-size=1024 -icount shift=2 \
        -cpu qemu64,+rdrand -m 2304 \
        -nodefaults -no-user-config -display none -monitor none -serial "file:$work/console" \
        -kernel "$cache/$suite.vmlinuz" -initrd "$cache/$suite.initrd" \
        -append 'console=ttyS0 quiet systemd.show_status=no mitigations=off' \
        -drive "file=$work/$disk.qcow2,if=none,id=disk,format=qcow2,cache=writeback" \
        -device virtio-blk-pci,drive=disk,addr=0x3 \
        -drive "file=$work/in.disk,if=none,id=in,format=raw,readonly=on" -device virtio-blk-pci,drive=in,addr=0x4 \
        -device virtio-serial-pci,addr=0x8 -chardev "pipe,id=agent,path=$work/agent" \
        -device virtserialport,chardev=agent,name=dtn.test \
        -netdev hubport,id=host,hubid=0 -device e1000e,netdev=host,mac=52:54:00:00:00:05,addr=0x5 \
        -netdev hubport,id=one,hubid=1 -device e1000e,netdev=one,mac=52:54:00:00:00:06,addr=0x6 \
        -netdev hubport,id=two,hubid=1 -device e1000e,netdev=two,mac=52:54:00:00:00:07,addr=0x7 \
        >>"$work/qemu.log" 2>&1 7>&- 8>&- </dev/null &
    machine=$!
    booted
}

# booted: waits for the boot that is under way; its time is in $seconds
booted() {
    local begun
    begun=$(date +%s)
    while :; do
        if hear && [[ $heard == *up\ * ]]; then break; fi
        if ! kill -0 "$machine" 2>/dev/null || (($(date +%s) - begun > 900)) ||
            grep -qaE 'emergency mode|Kernel panic' "$work/console"; then
            echo "the machine does not come up:" >&2
            tail -n 30 "$work/console" "$work/qemu.log" >&2
            return 1
        fi
    done
    # degraded is a host too
    inside 'systemctl is-system-running --wait' >/dev/null || true
    seconds=$(($(date +%s) - begun))
}

# tell SCRIPT: has it run as root in the machine, and waits for nothing
tell() {
    asked=$EPOCHREALTIME
    printf '%s %s\n' "$asked" "$(base64 -w0 <<<"$1")" >&7
}

# hear: the next line of the agent in $heard; fails when there is none within some seconds
heard='' part=''
hear() {
    local rc=0
    # the part of a line that was there is kept for the next time
    read -r -t 5 heard <&8 || rc=$?
    heard=$part$heard part=
    ((rc != 0)) || return 0
    part=$heard
    return 1
}

# inside SCRIPT: runs it as root in the machine, with its output and status. A machine that shares its
# processor with many is slow: half an hour for one script is none too long.
inside() {
    local word number status said deadline
    tell "$1"
    deadline=$(($(date +%s) + 1800))
    while (($(date +%s) < deadline)) && kill -0 "$machine" 2>/dev/null; do
        hear || continue
        read -r word number status said <<<"$heard"
        # not what an earlier script, which was not waited for, has to say
        [ "$word $number" = "done $asked" ] || continue
        base64 -d <<<"$said"
        return "$status"
    done
    echo "the machine does not answer" >&2
    return 124
}

# reboot: as an admin would
reboot() {
    # the agent ends too, and may not have told
    tell 'systemctl reboot'
    booted
}

# power_off: as an admin would
power_off() {
    tell 'systemctl poweroff'
    wait "$machine" || true
    exec 7>&- 8>&-
}

# cut: the power is gone
cut() {
    kill -KILL "$machine"
    wait "$machine" 2>/dev/null || true
    exec 7>&- 8>&-
}
