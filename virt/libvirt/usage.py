"""What all guests use, from two bulk calls on a connection of their own.

The first asks no QEMU; the second does, and is left out when one hangs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from virt.errors import DriverTimeoutError
from virt.libvirt import host as lv
from virt.libvirt.domains import Domains, power_of
from virt.spec import BlockStats, GuestUsage, InterfaceStats

LOG = logging.getLogger(__name__)
_CALLS = 4
_ASK_S = 5.0
_NET = {"bytes": "bytes", "packets": "pkts", "errors": "errs", "drops": "drop"}

Facts = Mapping[str, Any]


class Usage:
    """Reads the counters of the guests that `domains` calls ours."""

    def __init__(self, host: lv.Host, domains: Domains) -> None:
        self._host, self._domains = host.another(_CALLS), domains

    def read(self) -> list[GuestUsage]:
        """A line for each guest of ours that is on; without memory and disks while some guest's QEMU hangs.

        Raises HypervisorUnreachableError, DriverTimeoutError.
        """
        rows = self._host.call("(usage)", lambda connection: self._bulk(connection, lv.STATS_CHEAP), _ASK_S)
        try:
            asked = self._host.call(
                "(usage of disks)", lambda connection: self._bulk(connection, lv.STATS_ASKED), _ASK_S
            )
        except DriverTimeoutError as exc:
            LOG.debug("no counters of disks: %s", exc)
            asked = {}
        return [_usage(name, uuid, facts, asked.get((name, uuid), {})) for (name, uuid), facts in rows.items()]

    def close(self) -> None:
        """Let go of the connection."""
        self._host.close()

    def _bulk(self, connection: lv.Connection, mask: int) -> dict[tuple[str, str], Facts]:
        found = connection.getAllDomainStats(mask, lv.STATS_ACTIVE | lv.STATS_NOWAIT)
        return {(domain.name(), domain.UUIDString()): facts for domain, facts in found if self._domains.is_ours(domain)}


def _usage(name: str, uuid: str, facts: Facts, asked: Facts) -> GuestUsage:
    return GuestUsage(
        name=name,
        uuid=uuid,
        power=power_of(facts.get("state.state", 0), saved=False),
        vcpus=facts.get("vcpu.current", 0),
        cpu_time_ns=facts.get("cpu.time", 0),
        mem_kb=asked.get("balloon.current"),
        max_mem_kb=asked.get("balloon.maximum"),
        disks={device["name"]: _block(device) for device in _devices(asked, "block")},
        interfaces={device["name"]: _interface(device) for device in _devices(facts, "net")},
    )


def _devices(facts: Facts, kind: str) -> Iterator[dict[str, Any]]:
    """The facts of each device of a kind, without its number before their names; those that have a name."""
    for number in range(facts.get(f"{kind}.count", 0)):
        start = f"{kind}.{number}."
        device = {name.removeprefix(start): value for name, value in facts.items() if name.startswith(start)}
        if "name" in device:
            yield device


def _block(device: Mapping[str, Any]) -> BlockStats:
    return BlockStats(
        read_requests=device.get("rd.reqs", 0),
        read_bytes=device.get("rd.bytes", 0),
        write_requests=device.get("wr.reqs", 0),
        write_bytes=device.get("wr.bytes", 0),
        errors=device.get("errors", 0),
    )


def _interface(device: Mapping[str, Any]) -> InterfaceStats:
    words = {f"{way}_{ours}": device.get(f"{way}.{theirs}", 0) for way in ("rx", "tx") for ours, theirs in _NET.items()}
    return InterfaceStats(**words)
