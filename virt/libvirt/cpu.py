"""Whether this host can run guests of another one's CPU."""

from __future__ import annotations

import json
from typing import Any

from lxml import etree

from virt.errors import IncompatibleCpuError
from virt.libvirt import host as lv


def compare(host: lv.Host, arch: str, other: str, *, emulated: bool) -> None:
    """Raise IncompatibleCpuError unless guests made for a host with the CPU `other` (JSON) can run here.

    emulated: guests never see the real CPU, so only the architecture counts.
    """
    try:
        theirs: dict[str, Any] = json.loads(other)
        their_arch = theirs.get("arch")
        cpu_xml = _xml(theirs)
    except (ValueError, AttributeError, TypeError) as exc:
        raise IncompatibleCpuError(f"cannot compare CPUs: {other!r:.200} describes none") from exc
    if their_arch != arch:
        raise IncompatibleCpuError(f"a guest for {their_arch} cannot run here: this host is {arch}")
    if not emulated and not host.call("(cpu)", lambda connection: lv.can_run_guests_of(connection, cpu_xml)):
        raise IncompatibleCpuError(f"this host's CPU lacks something that {theirs.get('model')} there has")


def _xml(cpu: dict[str, Any]) -> str:
    node = etree.Element("cpu")
    for tag in ("arch", "model", "vendor"):
        if cpu.get(tag):
            etree.SubElement(node, tag).text = str(cpu[tag])
    if topology := {name: str(count) for name, count in cpu.get("topology", {}).items()}:
        etree.SubElement(node, "topology", topology)
    for name in cpu.get("features", ()):
        etree.SubElement(node, "feature", name=str(name))
    return etree.tostring(node, encoding="unicode")
