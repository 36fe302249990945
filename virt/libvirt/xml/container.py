"""What only containers have: file systems of the host, and users who are nobody on it."""

from __future__ import annotations

from virt.libvirt.xml.node import Node, at


class IdMap(Node):
    """Users and groups 0 to `count` - 1 of the container are `target` and on of the host."""

    TAG = "idmap"
    uid_start: int = at("uid/@start", default=0)
    uid_target: int = at("uid/@target")
    uid_count: int = at("uid/@count")
    gid_start: int = at("gid/@start", default=0)
    gid_target: int = at("gid/@target")
    gid_count: int = at("gid/@count")


class Filesystem(Node):
    """A directory of the host, and where the container has it."""

    TAG = "filesystem"
    type: str = at("@type", default="mount")
    accessmode: str = at("@accessmode", default="passthrough")
    source: str = at("source/@dir")
    target: str = at("target/@dir")
    readonly: bool = at("readonly", default=False)
