"""The little container: a busybox that says what it was told, answers pings and serves a shell."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.integration.processes import require_program

MARKER = "CONTAINER-READY"
PROGRAMS = ("cat", "echo", "hostname", "id", "ip", "ls", "ping", "poweroff", "sh", "sleep", "head", "touch")
INIT = f"""#!/bin/sh
export PATH=/bin
told=/var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json
echo "ROOT $(id -u) maps to $(cat /proc/self/uid_map)"
[ -f $told ] && echo "TOLD $(cat $told)"
for nic in /sys/class/net/*; do echo "NIC ${{nic##*/}} $(ip -4 -o addr show ${{nic##*/}})"; done
[ -f /flood ] && head -c 3000000 /dev/zero
trap 'touch /obeyed; exit 0' TERM INT PWR
echo {MARKER}
while :; do
    setsid sh </dev/tty2 >/dev/tty2 2>&1 &
    wait
    sleep 0.2
done
"""


def container_image(path: Path, *, name: str = "container.tar.gz", extra: dict[str, bytes] | None = None) -> Path:
    """The archive of its root, made in the folder `path`."""
    busybox = require_program("busybox")
    made = path / name
    files = {"bin/busybox": Path(busybox).read_bytes(), "sbin/init": INIT.encode(), **(extra or {})}
    with tarfile.open(made, "w:gz", compresslevel=1) as archive:
        for folder in (".", "bin", "dev", "etc", "proc", "run", "sbin", "sys", "tmp", "var"):
            archive.addfile(_member(folder, type=tarfile.DIRTYPE))
        for file, content in files.items():
            archive.addfile(_member(file, size=len(content)), io.BytesIO(content))
        for program in (*PROGRAMS, "setsid"):
            archive.addfile(_member(f"bin/{program}", type=tarfile.SYMTYPE, linkname="busybox"))
    return made


def _member(name: str, **facts: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode = 0o755
    for key, value in facts.items():
        setattr(made, key, value)
    return made
