#!/usr/bin/env bash
# images.sh [DIR [PROGRAMS]]: the images of the node agent and of the cluster's controller, as OCI archives in
# DIR (target/kubernetes), of the programs in PROGRAMS (target/debug), which are stripped first: what is
# tested is the same, and a tenth of the size. What is there of the same programs is not built again.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
out=$(realpath -m "${1:-$top/target/kubernetes}")
programs=${2:-$top/target/debug}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$top/Cargo.toml" | head -n 1)

mkdir -p "$out/programs"
for image in dtn-node dtn-cluster; do
    while read -r path; do
        case $path in '' | '#'*) continue ;; esac
        program=$programs/${path##*/} copy=$out/programs/${path##*/}
        [ -x "$program" ] || { echo "kubernetes: there is no program $program for the image $image" >&2; exit 1; }
        [ "$copy" -nt "$program" ] || strip --strip-debug -o "$copy" "$program"
    done <"$top/images/$image/programs"
    "$top/images/build" "$image" --programs "$out/programs" --tag "$version" --oci "$out/$image.tar" \
        --cache "$top/target/images/cache" >/dev/null
done
