"""Move a running guest to another host. Where it is afterwards is what both hypervisors say, never assumed."""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Callable

from compute.errors import ComputeError, HostNotFoundError, MigrationError, UnreachableError
from compute.rpcapi import ComputeRPC
from compute.settings import Settings
from compute.work import Work
from db import compute_nodes, resizes
from db.instances import Instance
from db.resizes import Resize
from db.session import Tx
from virt.driver import ComputeDriver, LiveMigratable, require
from virt.errors import DriverTimeoutError, GuestNotFoundError, NetworkError, VirtError
from virt.power_state import Power
from virt.spec import InstanceSpec

PREPARE_S, RETRY_S = 20.0, 1.0
LOG = logging.getLogger(__name__)


def live_migrate(work: Work, rpc: ComputeRPC) -> None:
    """On the source: have the destination prepare, move the guest, and settle by what the two hosts say."""
    dest: str = work.args["dest"]
    driver = require(work.driver, LiveMigratable)
    move = _begin(work, dest)
    work.when_failed.append(lambda tx: give_back(tx, work.instance, move))
    work.undo.callback(rpc.rollback_live_migration, work.context, dest, work.instance.id)
    address = rpc.pre_live_migration(work.context, dest, work.instance.id)
    work.check()
    work.db.run(resizes.set_status, move.id, resizes.LIVE_MIGRATING, "running")
    try:
        driver.live_migration(work.spec, move.dest_host or address or dest, work.progress)
    except DriverTimeoutError as exc:
        decide(work, move, rpc, exc)
        return
    arrived(work, move)


def prepare(driver: ComputeDriver, spec: InstanceSpec, settings: Settings) -> str | None:
    """On the destination: have everything in place, and say by which address it is reached; None: by its name.

    A network that cannot be had is tried again, as 2011.2 did; for so long as the source waits.
    """
    until = time.monotonic() + PREPARE_S
    for left in reversed(range(settings.live_migration_retry_count)):
        try:
            require(driver, LiveMigratable).pre_live_migration(spec)
            break
        except NetworkError:
            if not left or time.monotonic() > until:
                raise
            time.sleep(RETRY_S)
    return driver.get_host_ip_addr() or _reachable(settings.my_ip)


def _reachable(address: str) -> str | None:
    """The address, unless other hosts would reach themselves by it."""
    try:
        return None if ipaddress.ip_address(address).is_loopback else address
    except ValueError:
        return address


def _begin(work: Work, dest: str) -> Resize:
    latest = work.db.query(resizes.latest, work.instance.id)
    if latest is not None and latest.id == work.args.get("migration_id"):
        return latest
    if dest == work.host:
        raise MigrationError(f"instance {work.instance.id}: destination {dest} is the same as the source")

    def write(tx: Tx) -> int:
        row = work.instance
        if compute_nodes.find(tx, dest) is None:
            raise HostNotFoundError(f"no compute host {dest}")
        if not compute_nodes.claim(tx, dest, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb):
            raise MigrationError(f"{dest}: no room for instance {row.id}")
        return resizes.create(
            tx,
            instance_id=row.id,
            kind="live-migration",
            source_compute=work.host,
            dest_compute=dest,
            status="accepted",
            old_vm_state=row.vm_state,
        )

    return work.db.query(resizes.get, work.db.run(write))


def decide(work: Work, move: Resize, rpc: ComputeRPC, cause: Exception) -> None:
    """Nobody knows how it ended: ask both hosts. One running guest settles it; anything else is only reported."""
    here = power_of(work)
    there = _ask(lambda: rpc.get_power_state(work.context, move.dest_compute, work.instance.id))
    if here is None and there is not None and Power(there).is_on:
        arrived(work, move)
        return
    if here is not None and here.is_on and there is None:
        raise MigrationError(f"the guest is still on {work.host}: {cause}") from cause
    raise MigrationError(
        f"the guest is {_word(here)} on {work.host} and {_word(there)} on {move.dest_compute}; "
        "start it only where you have made sure that it does not run on the other"
    ) from cause


def power_of(work: Work) -> Power | None:
    """What this host's hypervisor says of the guest; None when it does not know it."""
    try:
        return work.driver.get_info(work.spec.name).power
    except GuestNotFoundError:
        return None


def _ask(question: Callable[[], int | None]) -> int | None:
    try:
        return question()
    except ComputeError as exc:
        raise UnreachableError(f"the destination does not say whether it has the guest: {exc}") from exc


def _word(power: int | None) -> str:
    return "unknown" if power is None else Power(power).label


def arrived(work: Work, move: Resize) -> None:
    """The guest runs on the destination: clean up here, and settle the record there."""
    work.undo.forget()
    try:
        require(work.driver, LiveMigratable).cleanup_live_migration(work.spec)
    except VirtError as exc:
        LOG.warning("instance %d: left-overs of its migration stay on %s: %s", work.instance.id, work.host, exc)
    row = work.instance
    work.changes.update(host=move.dest_compute, power_state=int(Power.RUNNING), epoch=row.epoch + 1)

    def write(tx: Tx) -> None:
        resizes.set_status(tx, move.id, resizes.LIVE_MIGRATING, "done")
        compute_nodes.release(tx, work.host, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb)

    work.when_done.append(write)


def give_back(tx: Tx, row: Instance, move: Resize) -> None:
    """The guest did not move: give the destination's claim back."""
    if resizes.set_status(tx, move.id, resizes.LIVE_MIGRATING, "error"):
        compute_nodes.release(tx, move.dest_compute, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb)
