"""What the driver asks of libvirt about containers: it has no bulk statistics for them."""

from __future__ import annotations

from lxml import etree

from virt.errors import GuestStateError
from virt.libvirt import host as lv
from virt.libvirt.domains import Domains
from virt.libvirt.stats import Stats
from virt.power_state import Power
from virt.spec import BlockStats, InstanceSpec

ROOT = "rootfs"
_BY_LIST = ((Power.RUNNING, lv.LIST_RUNNING), (Power.PAUSED, lv.LIST_PAUSED), (Power.SHUTOFF, lv.LIST_OFF))


class Containers(Domains):
    """The containers of one libvirt that carry the stamp of `cluster`."""

    def __init__(self, host: lv.Host, cluster: str) -> None:
        super().__init__(host, cluster)
        self._vcpus: dict[str, int] = {}  # asked once about each, until it is defined anew

    def boot(self, spec: InstanceSpec, xml: str) -> None:
        self._vcpus.pop(spec.uuid, None)
        super().boot(spec, xml)

    def restart(self, spec: InstanceSpec, xml: str) -> None:
        self._vcpus.pop(spec.uuid, None)
        super().restart(spec, xml)

    def ask_to_shut_down(self, spec: InstanceSpec) -> None:
        """Tell its init to; one that is off already has done it. Raises GuestNotFoundError."""
        self.ask(spec, lambda domain: lv.tolerate_wrong_state(lambda: lv.tell_init_to_shut_down(domain)))

    def states(self, connection: lv.Connection) -> list[tuple[lv.Domain, int]]:
        """Four listings; one that changed between them, and so is in none or two, is asked by itself."""
        found: dict[str, list[int]] = {}
        for power, flag in _BY_LIST:
            for domain in connection.listAllDomains(flag):
                found.setdefault(domain.UUIDString(), []).append(power)
        every = [(domain, found.get(domain.UUIDString(), [])) for domain in connection.listAllDomains()]
        return [(domain, seen[0] if len(seen) == 1 else domain.state()[0]) for domain, seen in every]

    def vcpus_used(self) -> int:
        """The virtual CPUs of all containers that are on, ours or not."""

        def work(connection: lv.Connection) -> int:
            on = {domain.UUIDString(): domain for domain in connection.listAllDomains(lv.LIST_RUNNING | lv.LIST_PAUSED)}
            self._vcpus = {uuid: self._vcpus.get(uuid) or domain.info()[3] for uuid, domain in on.items()}
            return sum(self._vcpus.values())

        return self._host.call("(resources)", work)

    def terminals(self, name: str) -> list[str]:
        """The host's ends of a container's terminals; none when it is off. Raises GuestNotFoundError."""

        def work(connection: lv.Connection) -> list[str]:
            domain = connection.lookupByName(name)
            if not domain.isActive():
                return []
            paths = (one.get("path") for one in etree.fromstring(domain.XMLDesc(0)).findall("devices/console/source"))
            return [str(path) for path in paths if path]

        return self._host.call(name, work)


class ContainerStats(Stats):
    """Counters of containers. The only disk is the root, counted by its control group."""

    def diagnostics(self, spec: InstanceSpec) -> dict[str, int]:
        """What libvirt knows, by the names that it has for machines. Raises GuestNotFoundError, GuestStateError."""

        def work(connection: lv.Connection) -> dict[str, int]:
            domain = connection.lookupByUUIDString(spec.uuid)
            if not domain.isActive():
                raise GuestStateError(f"guest {spec.name}: is off, so it counts nothing")
            state, _, _, vcpus, cpu_time_ns = domain.info()
            memory = {f"balloon.{name}": max(0, value) for name, value in domain.memoryStats().items()}
            return {"state.state": state, "vcpu.current": vcpus, "cpu.time": cpu_time_ns, **memory}

        return self._host.call(spec.name, work)

    def targets(self, name: str, kind: str) -> list[str]:
        found = super().targets(name, kind)
        return [ROOT] if kind == "disk" else found

    def block(self, name: str, disk: str) -> BlockStats:
        return super().block(name, "" if disk == ROOT else disk)
