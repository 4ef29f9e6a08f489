#!/usr/bin/env python3
"""Write an image archive (OCI image layout in a tar) from root file systems. No daemon, no registry.

usage: oci.py NAME OUT.tar ROOTFS.tar... [--user U] [--workdir D] [--env K=V]... [--label K=V]... [--stop-signal S]
              [--entrypoint ARG...] [--cmd ARG...]

Each ROOTFS.tar becomes one layer, in the given order. --entrypoint and --cmd take all words up to the next of the two,
so they come last. NAME is the full reference (registry/name:tag). The same input gives the same bytes, hence the same
digest. `ctr images import`, `kind load image-archive`, `skopeo copy oci-archive:OUT.tar …` and `podman load` read it.
"""
import hashlib
import io
import json
import os
import platform
import sys
import tarfile

OCI = "application/vnd.oci.image."
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def parse(words):
    """Options and layers out of the command line."""
    got = {"user": "", "workdir": "", "stop-signal": "", "env": [], "label": [], "entrypoint": [], "cmd": [], "layers": []}
    target, words = "layers", iter(words)
    for word in words:
        option = word[2:]
        if word in ("--entrypoint", "--cmd"):
            target = option
        elif target != "layers":
            got[target].append(word)
        elif word in ("--user", "--workdir", "--stop-signal"):
            got[option] = next(words)
        elif word in ("--env", "--label"):
            got[option].append(next(words))
        elif word.startswith("--"):
            sys.exit(f"oci.py: unknown option {word}")
        else:
            got["layers"].append(word)
    return got


def file_digest(path):
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def blob(value):
    """JSON bytes and their hex digest."""
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return data, hashlib.sha256(data).hexdigest()


def descriptor(kind, digest, size, **more):
    """An OCI descriptor."""
    return {"mediaType": OCI + kind, "digest": "sha256:" + digest, "size": size, **more}


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    name, out, *words = sys.argv[1:]
    got = parse(words)
    layers = [(file_digest(path), os.path.getsize(path), path) for path in got["layers"]]
    env = got["env"] if any(e.startswith("PATH=") for e in got["env"]) else [DEFAULT_PATH, *got["env"]]
    config = {
        "Env": env,
        "Entrypoint": got["entrypoint"],
        "Cmd": got["cmd"],
        "User": got["user"],
        "WorkingDir": got["workdir"],
        "StopSignal": got["stop-signal"],
        "Labels": dict(label.split("=", 1) for label in got["label"]),
    }
    machine = platform.machine()
    config_data, config_digest = blob({
        "architecture": ARCHITECTURE.get(machine, machine),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {key: value for key, value in config.items() if value},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest for digest, _, _ in layers]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "images/oci.py"} for _ in layers],
    })
    manifest_data, manifest_digest = blob({
        "schemaVersion": 2,
        "mediaType": OCI + "manifest.v1+json",
        "config": descriptor("config.v1+json", config_digest, len(config_data)),
        "layers": [descriptor("layer.v1.tar", digest, size) for digest, size, _ in layers],
    })
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index_data, _ = blob({
        "schemaVersion": 2,
        "mediaType": OCI + "index.v1+json",
        "manifests": [descriptor("manifest.v1+json", manifest_digest, len(manifest_data), annotations=names)],
    })
    part = f"{out}.{os.getpid()}.part"
    with tarfile.open(part, "w") as tar:

        def add(path, size, file):
            entry = tarfile.TarInfo(path)
            entry.size = size
            tar.addfile(entry, file)

        for path, data in (
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            ("index.json", index_data),
            ("blobs/sha256/" + config_digest, config_data),
            ("blobs/sha256/" + manifest_digest, manifest_data),
        ):
            add(path, len(data), io.BytesIO(data))
        for digest, (size, path) in {digest: (size, path) for digest, size, path in layers}.items():
            with open(path, "rb") as file:
                add("blobs/sha256/" + digest, size, file)
    os.rename(part, out)
    print(name, "sha256:" + manifest_digest)


main()
