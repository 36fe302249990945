"""What happens inside a guest: its agent, its console, its counters, its disk's contents."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from virt.errors import DiskError, GuestStateError, HypervisorError
from virt.fake.build import Step
from virt.fake.hypervisor import FakeHypervisor
from virt.fake.records import Domain, Footprint
from virt.power_state import Power
from virt.spec import BlockStats, ConsoleAccess, GuestUsage, InstanceSpec, InterfaceStats, SnapshotResult
from virt.volumes import refuse_volume_root

CONSOLE_PORT = 6969
_ADDRESS = "127.0.0.1"


@contextlib.contextmanager
def agent(host: FakeHypervisor, name: str) -> Iterator[Domain]:
    """Talk to the agent in a guest; GuestStateError when the guest does not run."""
    with host.changing(name) as (_, domain):
        if domain.power is not Power.RUNNING:
            raise GuestStateError(f"no agent answers in guest {name}: it is {domain.power.name}")
        yield domain


def set_admin_password(host: FakeHypervisor, name: str, new_pass: str) -> None:
    """Change the password; only its digest is kept, so that tests can compare and files hold no secret."""
    with agent(host, name) as domain:
        domain.password_sha256 = hashlib.sha256(new_pass.encode()).hexdigest()


def inject_file(host: FakeHypervisor, name: str, path: str, contents: bytes) -> None:
    """Write a file in the guest."""
    with agent(host, name) as domain:
        if not path.startswith("/"):
            raise HypervisorError(f"guest {name}: {path} is not an absolute path")
        domain.files[path] = base64.b64encode(contents).decode()


def reset_network(host: FakeHypervisor, name: str) -> None:
    """Have the guest use the network facts handed to it last."""
    with agent(host, name) as domain:
        domain.network_in_use = list(domain.network)
        domain.say("network: configured")


def inject_network_info(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Hand the guest its addresses."""
    with host.changing(spec.name) as (_, domain):
        domain.network = [str(address) for vif in spec.vifs for address in (*vif.addresses, *vif.addresses_v6)]


def console_output(host: FakeHypervisor, name: str, max_bytes: int) -> str:
    """The end of the console log."""
    output = "\n".join(host.domain(name).console).encode()
    return output[max(0, len(output) - max_bytes) :].decode(errors="replace")


def console_access(host: FakeHypervisor, name: str) -> ConsoleAccess:
    """A way to the console, with a token of its own; GuestStateError when the guest is off."""
    _require_on(name, host.domain(name))
    return ConsoleAccess(host=_ADDRESS, port=CONSOLE_PORT, token=host.token())


def snapshot(host: FakeHypervisor, spec: InstanceSpec, path: str, step: Step) -> SnapshotResult:
    """Write what stands for the root disk's contents to `path`; on an error nothing is left."""
    host.domain(spec.name)
    refuse_volume_root(spec)
    step("freeze")
    with ExitStack() as cleanup:
        with host.changing(spec.name) as (held, _):
            held.snapshots.append(path)
            contents = held.disks["root"].contents if "root" in held.disks else held.name
        cleanup.callback(_drop_snapshot, host, held, path)
        partial = Path(f"{path}.part")
        cleanup.callback(partial.unlink, missing_ok=True)
        data = f"FAKE IMAGE {contents}\n".encode()
        try:
            partial.write_bytes(data)
            step("write")
            partial.replace(path)
        except OSError as exc:
            raise DiskError(f"snapshot of guest {spec.name}: {exc}") from exc
    return SnapshotResult(path=path, disk_format="raw", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def diagnostics(host: FakeHypervisor, name: str) -> dict[str, int]:
    """Counters of a guest that is on."""
    domain = host.domain(name)
    _require_on(name, domain)
    counters = {"cpu_time_ns": domain.cpu_time_ns(), "memory_kb": domain.memory_mb * 1024, "vcpus": domain.vcpus}
    for disk in disks(host, name):
        disk_stats = block_stats(host, name, disk)
        counters[f"{disk}_read_bytes"], counters[f"{disk}_write_bytes"] = disk_stats.read_bytes, disk_stats.write_bytes
    for tap in taps(host, name):
        tap_stats = interface_stats(host, name, tap)
        counters[f"{tap}_rx_bytes"], counters[f"{tap}_tx_bytes"] = tap_stats.rx_bytes, tap_stats.tx_bytes
    return counters


def disks(host: FakeHypervisor, name: str) -> list[str]:
    """Ids of a guest's disks and volumes."""
    held = _footprint(host, name)
    return [*held.disks, *held.volumes]


def taps(host: FakeHypervisor, name: str) -> list[str]:
    """Ids of a guest's interfaces."""
    return list(_footprint(host, name).taps.values())


def block_stats(host: FakeHypervisor, name: str, disk_id: str) -> BlockStats:
    """A disk's counters; they grow while the guest runs."""
    busy = _busy(host, name, disk_id, disks(host, name))
    return BlockStats(
        read_requests=busy, read_bytes=busy * 4096, write_requests=busy // 2, write_bytes=busy * 2048, errors=0
    )


def interface_stats(host: FakeHypervisor, name: str, interface_id: str) -> InterfaceStats:
    """An interface's counters; they grow while the guest runs."""
    busy = _busy(host, name, interface_id, taps(host, name))
    return InterfaceStats(
        rx_bytes=busy * 900,
        rx_packets=busy,
        rx_errors=0,
        rx_drops=0,
        tx_bytes=busy * 300,
        tx_packets=busy // 2,
        tx_errors=0,
        tx_drops=0,
    )


def usage(host: FakeHypervisor) -> list[GuestUsage]:
    """The counters of every guest of ours that is on."""
    with host.lock:
        facts = [fact for fact in host.facts() if fact.ours and fact.uuid and fact.power.is_on]
        return [_usage(host, fact.name, str(fact.uuid)) for fact in facts]


def _usage(host: FakeHypervisor, name: str, uuid: str) -> GuestUsage:
    domain = host.domain(name)
    return GuestUsage(
        name=name,
        uuid=uuid,
        power=domain.power,
        vcpus=domain.vcpus,
        cpu_time_ns=domain.cpu_time_ns(),
        mem_kb=domain.memory_mb * 1024,
        max_mem_kb=domain.memory_mb * 1024,
        disks={disk: block_stats(host, name, disk) for disk in disks(host, name)},
        interfaces={tap: interface_stats(host, name, tap) for tap in taps(host, name)},
    )


def _busy(host: FakeHypervisor, name: str, device: str, known: list[str]) -> int:
    if device not in known:
        raise HypervisorError(f"guest {name} has no device {device}")
    domain = host.domain(name)
    return 0 if not domain.power.is_on else zlib.crc32(device.encode()) % 97 + domain.cpu_time_ns() // 1_000_000


def _footprint(host: FakeHypervisor, name: str) -> Footprint:
    with host.lock:
        host.domain(name)
        held = host.held(name)
    if held is None:
        raise HypervisorError(f"guest {name} has a domain and no footprint")
    return held


def _drop_snapshot(host: FakeHypervisor, held: Footprint, path: str) -> None:
    with host.lock:
        if path in held.snapshots:
            held.snapshots.remove(path)
        if host.held(held.name) is held:
            host.save(held)


def _require_on(name: str, domain: Domain) -> None:
    if not domain.power.is_on:
        raise GuestStateError(f"guest {name} is {domain.power.name}")
