"""Deletes do not wait for the dead: an instance ends without a host that is silent, and the host cleans up later.

What the host still has is an order of its own in the journal, which waits as long as it must. Until it is done, the
addresses and volumes that a guest there may still use stay the deleted instance's.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from compute import hosts
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import ClaimLostError, ConflictError, HostNotFoundError, InUseError
from compute.host import Host
from compute.ops import lifecycle
from compute.ops.volumes import end_with_instance
from compute.policy import require_admin
from compute.states import MOVES, Task
from db import actions, cleaning, instances, resizes, services, work
from db.actions import Action
from db.errors import RowNotFoundError
from db.session import Database, Tx
from virt.driver import Resizable

LOG = logging.getLogger(__name__)


def end_without_the_dead(host: Host) -> None:
    """End the deletes that have waited for a silent host for as long as it takes to call it silent."""
    down_time_s = host.settings.service_down_time
    silent = set(host.db.query(services.silent, "nova-compute", down_time_s)) - {host.settings.host}
    if not silent:
        return
    for delete in host.db.query(cleaning.waiting_for, silent, Task.DELETING, down_time_s):
        try:
            host.db.run(_go_on_without, delete, down_time_s)
        except (ClaimLostError, RowNotFoundError) as exc:
            LOG.debug("order %d: %s", delete.id, exc)
        except Exception:  # one that cannot be ended must not keep the others from their ends
            LOG.exception("order %d (%s of instance %d)", delete.id, delete.action, delete.instance_id)


def _go_on_without(tx: Tx, delete: Action, down_time_s: float) -> None:
    """Leave a delete to the next host that lives, or end it. Raises ClaimLostError when somebody took it meanwhile."""
    args: dict[str, Any] = json.loads(delete.args)
    legs, absent = lifecycle.legs_of(tx, delete, args, down_time_s)
    absent.append(str(delete.host))
    if legs:
        left = json.dumps({**args, "legs": legs[1:], "absent": absent})
        again_s = MOVES[Task.DELETING].deadline_s
        if not actions.redirect(tx, delete, step=delete.step, host=legs[0], args=left, deadline_s=again_s):
            raise ClaimLostError(f"order {delete.id} of instance {delete.instance_id} was taken meanwhile")
        return
    row = instances.get(tx, delete.instance_id)
    changes = {"vm_state": MOVES[Task.DELETING].end, **lifecycle.gone()}
    words = f"without {', '.join(absent)}, which cleans up when it is back"
    if not instances.end_task(tx, row.id, Task.DELETING, changes) or not actions.finish_seen(tx, delete, words):
        raise ClaimLostError(f"order {delete.id} of instance {row.id} was taken meanwhile")
    lifecycle.release_everything(tx, row, delete, absent)


def clean_up(host: Host, order: Action) -> None:
    """Remove what this host has of an instance that was deleted without it, and let go of what it held meanwhile.

    Raises what the driver raises; the order waits then, and is done again.
    """
    dossier = host.db.query(work.for_instance, order.instance_id, with_groups=False)
    spec = host.specs.build(dossier)
    lifecycle.cancel(host.tasks.running(order.instance_id), "its instance is deleted")
    host.driver.destroy(spec)
    if isinstance(host.driver, Resizable):
        host.driver.confirm_resize(spec)
    is_last = host.db.query(cleaning.is_last, order)
    ended = end_with_instance(dossier.volumes, host.settings.host, host.maker, last_leg=is_last)

    def end(tx: Tx) -> bool:
        if not cleaning.finish(tx, order):
            return False
        if cleaning.is_last(tx, order):
            for write in ended:
                write(tx)
            lifecycle.release_held(tx, order.instance_id)
        return True

    if host.db.run(end):
        LOG.info("instance %d: is deleted, and what was left of it here is removed", order.instance_id)


def forget_service(
    db: Database, context: RequestContext, host: str, binary: str, service_down_time_s: float
) -> list[int]:
    """Remove the record of a daemon that never comes back; a compute host lets go of what deleted instances held.

    Returns the ids of those instances. Raises HostNotFoundError, ConflictError while the daemon is alive, InUseError
    while instances or moves are on the host.
    """
    require_admin(context, "service delete")

    def write(tx: Tx) -> list[int]:
        found = services.list_all(tx, host=host, binary=binary)
        if not found:
            raise HostNotFoundError(f"no service {binary!r:.60} on host {host!r:.60}")
        if hosts.is_alive(found[0], service_down_time_s):
            raise ConflictError(f"{binary} on {host} is alive: stop it first")
        freed = _let_go(tx, host) if binary == "nova-compute" else []
        services.destroy(tx, found[0].service.id)
        return freed

    with translated():
        return db.run(write)


def _let_go(tx: Tx, host: str) -> list[int]:
    here = {row.id for row in instances.list_all(tx, host=host)}
    here |= {move.instance_id for move in resizes.list_all(tx, host=host, statuses=resizes.OPEN)}
    if here:
        some = ", ".join(map(str, sorted(here)[:10]))
        raise InUseError(f"host {host} has {len(here)} instances ({some}): delete them, or end their moves, first")
    freed = cleaning.owed(tx, host)
    for order in freed:
        if cleaning.finish(tx, order, f"{host} was given up") and cleaning.is_last(tx, order):
            lifecycle.release_held(tx, order.instance_id)
    return [order.instance_id for order in freed]
