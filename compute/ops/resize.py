"""Give an instance another size, on another host: prep_resize there, resize_instance here, finish_resize there.

All legs are one order and one journal row, passed from host to host; the `migrations` row keeps what a revert needs.
Claims: the destination's is made with the order, the source's is kept until the resize is confirmed.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from compute.errors import FlavorNotFoundError, MigrationError, MigrationNotFoundError, NoValidHostError
from compute.settings import Settings
from compute.states import Vm
from compute.work import Work
from db import compute_nodes, instance_types, resizes
from db.errors import RowNotFoundError
from db.instance_types import InstanceType
from db.resizes import Resize
from db.session import Tx
from virt.driver import Resizable, require
from virt.errors import GuestNotFoundError, VirtError
from virt.spec import InstanceSpec

LOG = logging.getLogger(__name__)


def prepare(work: Work, settings: Settings) -> None:
    """On the destination: record the move and pass the order on to the source."""
    row = work.instance
    if row.host is None or row.host == work.host:
        raise MigrationError(f"instance {row.id}: destination {work.host} is the same as the source")
    require(work.driver, Resizable)
    move = _recorded(work) or _record(work, settings)
    work.pass_on(
        "resize_instance",
        move.source_compute,
        {"migration_id": move.id},
        lambda tx: resizes.set_status(
            tx, move.id, "pre-migrating", "pre-migrating", dest_host=work.driver.get_host_ip_addr() or settings.my_ip
        ),
    )


def _recorded(work: Work) -> Resize | None:
    migration_id = work.args.get("migration_id")
    return None if migration_id is None else work.db.query(resizes.get, migration_id)


def _record(work: Work, settings: Settings) -> Resize:
    """The move of a plain cast, with its claim; an order of the API brings both."""
    flavor = _flavor(work, work.args["flavor_id"])

    def write(tx: Tx) -> int:
        if not compute_nodes.claim(tx, work.host, **size_of(flavor)):
            raise NoValidHostError(f"{work.host}: no room for {flavor.name}")
        return record(tx, work.instance.id, work.instance.vm_state, work.instance.instance_type_id, flavor.id,
                      source=work.instance.host or "", dest=work.host, dest_host=settings.my_ip)  # fmt: skip

    return work.db.query(resizes.get, work.db.run(write))


def record(
    tx: Tx, instance_id: int, vm_state: str, old_flavor_id: int, new_flavor_id: int, *, source: str, dest: str,
    dest_host: str | None,
) -> int:  # fmt: skip
    """Write the row of a resize that begins and return its id."""
    return resizes.create(
        tx,
        instance_id=instance_id,
        kind="resize",
        source_compute=source,
        dest_compute=dest,
        status="pre-migrating",
        dest_host=dest_host,
        old_flavor_id=old_flavor_id,
        new_flavor_id=new_flavor_id,
        old_vm_state=vm_state,
    )


def migrate(work: Work, settings: Settings) -> None:
    """On the source: stop the guest, asked first, bring its disks to the destination, pass the order on to it."""
    move = _move(work, "pre-migrating", "migrating")
    work.when_failed.append(lambda tx: abandon(tx, move))
    work.db.run(resizes.set_status, move.id, ("pre-migrating", "migrating"), "migrating")
    driver = require(work.driver, Resizable)
    work.undo.callback(driver.revert_resize, work.spec)
    if move.old_vm_state == Vm.ACTIVE:
        with suppress(GuestNotFoundError):  # an earlier attempt has set it aside; or it is gone, as the next line says
            work.driver.power_off(work.spec, settings.shutdown_timeout)
    disk_info = driver.migrate_disk_and_power_off(work.spec, move.dest_host or move.dest_compute, work.progress)
    work.pass_on(
        "finish_resize",
        move.dest_compute,
        {"migration_id": move.id, "disk_info": disk_info},
        lambda tx: resizes.set_status(tx, move.id, "migrating", "post-migrating", disk_info=disk_info),
    )


def abandon(tx: Tx, move: Resize) -> None:
    """The resize failed, and the guest is on the source: give the destination's claim back, once."""
    if not resizes.set_status(tx, move.id, resizes.RESIZING, "error"):
        return
    compute_nodes.release(tx, move.dest_compute, **size_of(_type(tx, move.new_flavor_id)))


def finish(work: Work) -> None:
    """On the destination: take the disks over at the new size and start the guest; or give it back to the source."""
    move = _move(work, "post-migrating")
    flavor = work.db.query(_type, move.new_flavor_id)
    spec = resized(work.spec, flavor)
    driver = require(work.driver, Resizable)
    try:
        driver.finish_resize(spec, work.args["disk_info"], work.progress)
        if move.old_vm_state == Vm.STOPPED:
            driver_off(work, spec)
    except VirtError as exc:
        LOG.warning("instance %d: resize failed here, giving it back to %s: %s", spec.id, move.source_compute, exc)
        work.driver.destroy(spec)
        work.pass_on("finish_revert_resize", move.source_compute, {"migration_id": move.id, "failure": str(exc)[:500]})
        return
    work.undo.callback(work.driver.destroy, spec)
    work.changes.update(host=work.host, launched_on=work.host, **columns_of(flavor))
    work.when_done.append(lambda tx: resizes.set_status(tx, move.id, "post-migrating", "finished"))


def driver_off(work: Work, spec: InstanceSpec) -> None:
    """A guest that was off before its resize is off after it."""
    work.driver.power_off(spec)


def confirm(work: Work) -> None:
    """On the source: remove what a revert would have needed, and give its claim back."""
    move = _move(work, "finished")
    old = work.db.query(_type, move.old_flavor_id)
    require(work.driver, Resizable).confirm_resize(work.spec)
    work.end = Vm(move.old_vm_state or Vm.ACTIVE)
    work.changes["power_state"] = work.instance.power_state

    def write(tx: Tx) -> None:
        resizes.set_status(tx, move.id, "finished", "confirmed")
        compute_nodes.release(tx, move.source_compute, **size_of(old))

    work.when_done.append(write)


def revert(work: Work) -> None:
    """On the destination: remove the guest and pass the order on to the source."""
    move = _move(work, "finished")
    work.driver.destroy(work.spec)
    work.pass_on("finish_revert_resize", move.source_compute, {"migration_id": move.id})


def finish_revert(work: Work) -> None:
    """On the source: start the guest again at its old size, after a revert or after a resize that failed."""
    move = _move(work, "finished", "post-migrating")
    old, new = work.db.query(_type, move.old_flavor_id), work.db.query(_type, move.new_flavor_id)
    spec = resized(work.spec, old)
    require(work.driver, Resizable).revert_resize(spec)
    if move.old_vm_state == Vm.STOPPED:
        driver_off(work, spec)
    failure = work.args.get("failure")
    if failure is not None:
        work.when_failed.append(lambda tx: abandon(tx, move))
        raise MigrationError(
            f"resize failed on {move.dest_compute}, the instance is on {move.source_compute}: {failure}"
        )

    def write(tx: Tx) -> None:
        resizes.set_status(tx, move.id, "finished", "reverted")
        compute_nodes.release(tx, move.dest_compute, **size_of(new))

    work.end = Vm(move.old_vm_state or Vm.ACTIVE)
    work.changes.update(host=work.host, launched_on=work.host, **columns_of(old))
    work.when_done.append(write)


def _move(work: Work, *statuses: str) -> Resize:
    """The move that the order is about, if it is in one of these statuses."""
    try:
        move = work.db.query(resizes.get, work.args["migration_id"])
    except RowNotFoundError as exc:
        raise MigrationNotFoundError(str(exc)) from exc
    if move.instance_id != work.instance.id or move.status not in statuses:
        raise MigrationNotFoundError(
            f"instance {work.instance.id}: migration {move.id} is {move.status}, not {' or '.join(statuses)}"
        )
    return move


def _flavor(work: Work, key: object) -> InstanceType:
    try:
        return work.db.query(instance_types.get_by_name_or_flavorid, str(key))
    except RowNotFoundError as exc:
        raise FlavorNotFoundError(str(exc)) from exc


def _type(tx: Tx, type_id: int | None) -> InstanceType:
    return instance_types.get(tx, type_id or 0)


def size_of(flavor: InstanceType) -> dict[str, int]:
    """What a flavor claims of a host."""
    return {"vcpus": flavor.vcpus, "memory_mb": flavor.memory_mb, "local_gb": flavor.local_gb}


def columns_of(flavor: InstanceType) -> dict[str, Any]:
    """The instance columns that a flavor decides."""
    disks = {"swap": flavor.swap, "ephemeral_gb": flavor.ephemeral_gb}
    return {"instance_type_id": flavor.id, **disks, **size_of(flavor)}


def resized(spec: InstanceSpec, flavor: InstanceType) -> InstanceSpec:
    """The spec at another size."""
    return replace(
        spec,
        memory_mb=flavor.memory_mb,
        vcpus=flavor.vcpus,
        root_gb=flavor.local_gb - flavor.ephemeral_gb,
        ephemeral_gb=flavor.ephemeral_gb,
        swap_mb=flavor.swap,
        flavor=flavor.name,
    )
