"""image.py FILE REFERENCE COMMAND...: writes an OCI image archive (image-spec 1.1) that holds Debian's
static busybox and, where it is installed, iperf3 with its libraries, made without a registry."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

APPLETS = (
    "sh sleep ip cat ls ping nc httpd wget id dd sha256sum md5sum head tail seq true false "
    "echo grep sed awk mkdir rm touch date timeout hostname mount ps kill usleep"
).split()


def digest(data):
    """The name of a blob."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def measuring():
    """iperf3 and every library that it is linked with, as the loader finds them."""
    program = shutil.which("iperf3")
    if program is None:
        return []
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = [word for line in told.splitlines() for word in line.split()]
    return [program, *(word for word in words if word.startswith("/"))]


def layer():
    """The only layer: a file system with busybox in it, the same for the same busybox."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:

        def add(name, data=None, kind=tarfile.REGTYPE, link="", mode=0o755):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, mode
            entry.size = len(data) if data is not None else 0
            tar.addfile(entry, io.BytesIO(data) if data is not None else None)

        for folder in ("bin", "proc", "sys", "dev", "etc", "var", "srv"):
            add(folder, kind=tarfile.DIRTYPE)
        add("tmp", kind=tarfile.DIRTYPE, mode=0o1777)
        with open("/bin/busybox", "rb") as busybox:
            add("bin/busybox", busybox.read())
        for applet in APPLETS:
            add("bin/" + applet, kind=tarfile.SYMTYPE, link="busybox")
        for path in measuring():
            with open(path, "rb") as file:
                add(path.lstrip("/"), file.read())
        add("etc/passwd", b"root:x:0:0::/:/bin/sh\n", mode=0o644)
    return out.getvalue()


def write(path, reference, command):
    """The archive: index, manifest, configuration and layer."""
    content = layer()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Entrypoint": command, "Env": ["PATH=/bin:/usr/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(content)]},
        }
    ).encode()

    def described(kind, data, **more):
        media = "application/vnd.oci.image." + kind
        return {"mediaType": media, "digest": digest(data), "size": len(data), **more}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", config),
            "layers": [described("layer.v1.tar", content)],
        }
    ).encode()
    names = {
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": reference,
    }
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [described("manifest.v1+json", manifest, annotations=names)],
        }
    ).encode()
    with tarfile.open(path, "w") as tar:

        def add(name, data):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))

        add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add("index.json", index)
        for blob in (content, config, manifest):
            add("blobs/" + digest(blob).replace(":", "/"), blob)


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2], sys.argv[3:])
