"""Counters of guests. A disk's id is its target (vda), an interface's is its tap."""

from __future__ import annotations

from lxml import etree

from virt.errors import GuestStateError
from virt.libvirt.host import Connection, Host
from virt.spec import BlockStats, InstanceSpec, InterfaceStats


class Stats:
    """Reads counters, one call each."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        """All of libvirt's counters, by its names. Raises GuestNotFoundError, GuestStateError."""

        def work(connection: Connection) -> dict[str, int]:
            domain = connection.lookupByUUIDString(spec.uuid)
            if not domain.isActive():
                raise GuestStateError(f"guest {spec.name}: is off, so it counts nothing")
            [(_, facts)] = connection.domainListGetStats([domain], 0)
            return {name: value for name, value in facts.items() if isinstance(value, int) and value >= 0}

        return self._host.call(spec.name, work)

    def targets(self, name: str, kind: str) -> list[str]:
        """Ids of the guest's devices of a kind, `disk` or `interface`."""

        def work(connection: Connection) -> list[str]:
            devices = etree.fromstring(connection.lookupByName(name).XMLDesc(0)).findall(f"devices/{kind}")
            found = [one.find("target") for one in devices if one.get("device") != "cdrom"]
            return [str(target.get("dev")) for target in found if target is not None]

        return self._host.call(name, work)

    def block(self, name: str, disk: str) -> BlockStats:
        """One disk's counters."""
        read_requests, read_bytes, write_requests, write_bytes, errors = (
            max(0, value) for value in self._host.call(name, lambda c: c.lookupByName(name).blockStats(disk))
        )
        return BlockStats(
            read_requests=read_requests, read_bytes=read_bytes, write_requests=write_requests,
            write_bytes=write_bytes, errors=errors,
        )  # fmt: skip

    def interface(self, name: str, tap: str) -> InterfaceStats:
        """One interface's counters, as libvirt turns them: received is what the guest received."""
        counters = self._host.call(name, lambda c: c.lookupByName(name).interfaceStats(tap))
        names = ("rx_bytes", "rx_packets", "rx_errors", "rx_drops", "tx_bytes", "tx_packets", "tx_errors", "tx_drops")
        return InterfaceStats(**{name: max(0, value) for name, value in zip(names, counters, strict=True)})
