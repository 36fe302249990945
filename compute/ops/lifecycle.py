"""Build, end, start, stop and restart instances."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compute.errors import AbortedError, BuildFailedError, InvalidInputError, NoValidHostError
from compute.ops import networking
from compute.ops.volumes import end_with_instance, have_from_the_start
from compute.orders import PLAIN
from compute.scheduler import Scheduler, request_for
from compute.sealing import Sealer
from compute.settings import Settings
from compute.volume import Maker
from compute.work import Work
from db import cleaning, compute_nodes, instances, networks, resizes, security_groups, services, volumes
from db.actions import Action
from db.session import Database, Tx, utcnow
from virt.driver import Resizable
from virt.errors import GuestExistsError, ImageError, VirtError
from virt.power_state import Power

LOG = logging.getLogger(__name__)
ABORT_WAIT_S = 30.0


def run(work: Work, settings: Settings, scheduler: Scheduler) -> None:
    """Build the instance here; if that fails for a reason of this host, pass it on to another one."""
    if work.plain or work.instance.host is None:
        _book(work)
    clean_up_on_failure(work)
    _keep_injected_files(work)
    have_from_the_start(work)
    networking.allocate(work, stub_network=settings.stub_network)
    try:
        work.driver.spawn(work.spec, work.progress)
    except (ImageError, AbortedError):
        raise
    except VirtError as exc:
        if not isinstance(exc, GuestExistsError):
            _make_sure_it_is_gone(work)
        if len(work.args.get("tried", {})) + 1 >= settings.scheduler_max_attempts or work.args.get("force_host"):
            raise
        _try_elsewhere(work, scheduler, exc)
        return
    work.undo.callback(work.driver.destroy, work.spec)
    work.changes.update(launched_at=utcnow(), launched_on=work.host, host=work.host)
    work.check()


def _book(work: Work) -> None:
    """Claim room for an instance that another scheduler sent here; NoValidHostError when there is none."""
    size = _size(work)

    def claim(tx: Tx) -> None:
        if not compute_nodes.claim(tx, work.host, **size):
            raise NoValidHostError(f"{work.host}: no room for {size}")
        instances.set_host(tx, work.instance.id, work.task, work.host, scheduled_at=utcnow())
        work.keep_args(tx, {name: value for name, value in work.args.items() if name != PLAIN})

    work.db.run(claim)


def check_injected_files(files: list[Any]) -> None:
    """InvalidInputError unless these are what 2011.2's run_instance takes."""
    if not all(
        isinstance(one, list | tuple) and len(one) == 2 and all(isinstance(x, str) for x in one) for one in files
    ):
        raise InvalidInputError("run_instance: injected_files must be a list of [path, base64 contents]")


def keep_injected_files(db: Database, sealer: Sealer, instance_id: int, files: list[Any]) -> None:
    """Seal the files that a plain run_instance brought into the record, where every later build finds them."""
    check_injected_files(files)
    db.run(instances.update, instance_id, sealed_files=sealer.seal(files))


def _keep_injected_files(work: Work) -> None:
    """The files that a plain run_instance brought go into the record, sealed, where a later build finds them too."""
    files = work.args.get("injected_files")
    if files:
        keep_injected_files(work.db, work.sealer, work.instance.id, files)
        work.reload()


def clean_up_on_failure(work: Work) -> None:
    """Have a failed build leave no claim and no address, and belong to no host.

    One that could not be cleaned up stays on its host with all that it holds: a delete there ends it.
    """
    work.when_clean.append(lambda tx: compute_nodes.release(tx, work.host, **_size(work)))
    work.when_clean.append(lambda tx: networks.release(tx, work.instance.id))
    work.clean_changes["host"] = None


def _make_sure_it_is_gone(work: Work) -> None:
    """However the build ended, nothing of it may be left before it is tried elsewhere or given up."""
    work.undo.callback(work.driver.destroy, work.spec)
    work.driver.destroy(work.spec)
    work.undo.forget()


def _try_elsewhere(work: Work, scheduler: Scheduler, exc: VirtError) -> None:
    row = work.instance
    tried = {**work.args.get("tried", {}), work.host: str(exc)[:500]}
    LOG.warning("instance %d: build failed here, trying another host: %s", row.id, exc)

    def choose(tx: Tx) -> str:
        request = request_for(tx, row, availability_zone=work.args.get("zone"), exclude=tried)
        try:
            host = scheduler.place(tx, request)
        except NoValidHostError as nowhere:
            raise BuildFailedError(f"{exc}; and no other host: {nowhere}") from exc
        compute_nodes.release(tx, work.host, **_size(work))
        instances.set_host(tx, row.id, work.task, host)
        return host

    work.pass_on("run_instance", choose, {**work.args, "tried": tried})


def terminate(work: Work, maker: Maker, service_down_time_s: float) -> None:
    """End the instance: guest, disks, addresses, claims and attachments, here and on the other host of a resize.

    A host whose daemon is silent is not waited for: it removes what it has when it is back.
    """
    cancel(work.others(), "a delete outranked it")
    work.driver.destroy(work.spec)
    if isinstance(work.driver, Resizable):
        work.driver.confirm_resize(work.spec)  # what a resize kept for a revert is not the guest's own
    legs, absent = work.db.query(legs_of, work.action, work.args, service_down_time_s)
    ended = end_with_instance(work.dossier.volumes, work.host, maker, last_leg=not legs and not absent)
    if legs:
        work.pass_on("terminate_instance", legs[0], {**work.args, "legs": legs[1:], "absent": absent})
        return
    if not absent:
        work.when_done.extend(ended)
    work.when_done.append(lambda tx: release_everything(tx, work.instance, work.action, absent))
    work.changes.update(gone())


def cancel(jobs: Iterable[Work], reason: str) -> None:
    """Have operations stop because their instance is deleted, and wait a while for each."""
    for job in jobs:
        job.cancel(reason)
        if not job.left.wait(ABORT_WAIT_S):
            LOG.warning("instance %d: %s does not stop; deleting under it", job.instance.id, job.task)


def legs_of(tx: Tx, delete: Action, args: Mapping[str, Any], service_down_time_s: float) -> tuple[list[str], list[str]]:
    """The hosts on which a delete must still be done after this one, and those whose daemons are silent."""
    legs, absent = args.get("legs"), list(args.get("absent", ()))
    if legs is None:
        move = resizes.latest(tx, delete.instance_id)
        is_open = move is not None and move.status in resizes.OPEN
        legs = sorted({move.source_compute, move.dest_compute} - {delete.host}) if move and is_open else []
    silent = services.silent(tx, "nova-compute", service_down_time_s) if legs else []
    return [leg for leg in legs if leg not in silent], absent + [leg for leg in legs if leg in silent]


def gone() -> dict[str, Any]:
    """The columns of an instance that is no more."""
    return {
        "deleted": True,
        "deleted_at": utcnow(),
        "terminated_at": utcnow(),
        "power_state": int(Power.NOSTATE),
        "sealed_files": None,
        "sealed_password": None,
    }


def release_everything(
    tx: Tx, row: instances.Instance, delete: Action | None = None, absent: Sequence[str] = ()
) -> None:
    """Give back what a deleted instance held in the database.

    What a guest on an `absent` host may still use stays held, until that host has done its part of `delete`.
    """
    if delete is not None:
        for host in absent:
            LOG.warning("instance %d: %s is silent, and removes what it has of it when it is back", row.id, host)
            cleaning.owe(tx, delete, host)
    if not absent:
        release_held(tx, row.id)
    security_groups.dissociate(tx, row.id)
    if row.host is not None:
        compute_nodes.release(tx, row.host, vcpus=row.vcpus, memory_mb=row.memory_mb, local_gb=row.local_gb)
    for held in resizes.held_for(tx, row.id):
        compute_nodes.release(tx, held.host, vcpus=held.vcpus, memory_mb=held.memory_mb, local_gb=held.local_gb)
        resizes.set_status(tx, held.move_id, resizes.OPEN, "deleted")


def release_held(tx: Tx, instance_id: int) -> None:
    """Give back what no guest of it uses any more: addresses and volumes."""
    networks.release(tx, instance_id)
    for attachment in volumes.attachments_of(tx, [instance_id]):
        volumes.set_detached(tx, attachment.id)


def reboot(work: Work, settings: Settings, *, hard: bool) -> None:
    """Restart the guest, asking it first unless `hard`."""
    work.driver.reboot(work.spec, hard=hard, timeout_s=settings.shutdown_timeout)


def start(work: Work) -> None:
    """Power a stopped instance on."""
    work.driver.power_on(work.spec)


def stop(work: Work, settings: Settings) -> None:
    """Ask the guest to shut down, and pull the plug when it does not."""
    work.driver.power_off(work.spec, timeout_s=settings.shutdown_timeout)


def _size(work: Work) -> dict[str, int]:
    row = work.instance
    return {"vcpus": row.vcpus, "memory_mb": row.memory_mb, "local_gb": row.local_gb}
