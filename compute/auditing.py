"""What a host's daemon sees and no record explains: guests, and files; and files that records say are there."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from compute.host import Host
from compute.sync import PowerSync
from db import audit, instances, work
from virt.driver import AuditsFiles
from virt.errors import VirtError
from virt.firewall.base import Drift

LOG = logging.getLogger(__name__)


def audit_host(host: Host, *, repair: bool = False) -> list[dict[str, Any]]:
    """A document for each finding: name, uuid, kind (deleted, elsewhere, unknown, files, broken, filters, open).

    The last four kinds have words, too.

    With `repair`, files of guests that were deleted are removed, and packet filters mended; nothing else is touched.
    """
    found = [asdict(orphan) for orphan in PowerSync(host).audit()]
    if isinstance(host.driver, AuditsFiles):
        found += _stray(host, host.driver, repair=repair)
        found += _broken(host, host.driver)
    drifts = host.filters.repair() if repair else host.filters.audit()
    return found + [{"name": one.guest or host.settings.host, "uuid": None, **_filter(one, repair)} for one in drifts]


def _filter(drift: Drift, repair: bool) -> dict[str, str]:
    words = f"{drift.what} {drift.problem}{'; it is mended' if repair else ''}"
    return {"kind": "open" if drift.opened else "filters", "words": words}


def _stray(host: Host, driver: AuditsFiles, *, repair: bool) -> list[dict[str, Any]]:
    """Files of guests that no instance has. Every host's instances count: the directory may be a shared one."""
    suspects = driver.stray_files(_names(host, deleted=False))
    if not suspects:
        return []
    # asked after the look: what was made in between had its row before
    live, deleted = _names(host, deleted=False), _names(host, deleted=True)
    found = []
    for name in suspects:
        if name in live:
            continue
        was_ours = name in deleted
        words = "has files here, and is deleted" if was_ours else "has files here, and was never an instance"
        if was_ours and repair:
            words = _removed(driver, name)
        found.append({"name": name, "uuid": None, "kind": "files", "words": words})
    return found


def _removed(driver: AuditsFiles, name: str) -> str:
    try:
        driver.remove_stray_files(name)
    except VirtError as exc:
        return f"has files here that cannot be removed: {exc}"
    LOG.warning("guest %s: is deleted, and its files are removed now", name)
    return "had files here, and is deleted: they are removed"


def _broken(host: Host, driver: AuditsFiles) -> list[dict[str, Any]]:
    here = [row.id for row in host.db.query(instances.power_records, host.settings.host) if row.task_state is None]
    rows = [host.db.query(work.for_instance, instance_id, with_groups=False) for instance_id in here]
    specs = [host.specs.build(row) for row in rows if row.instance.launched_at is not None]
    uuids = {spec.name: spec.uuid for spec in specs}
    return [
        {"name": name, "uuid": uuids.get(name), "kind": "broken", "words": words}
        for name, words in driver.missing_files(specs)
    ]


def _names(host: Host, *, deleted: bool) -> set[str]:
    ids = host.db.query(audit.instance_ids, deleted=deleted)
    return {host.specs.name_of(instance_id) for instance_id in ids}
