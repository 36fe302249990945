"""Addresses of instances: claimed atomically in the database, before the driver is asked for anything."""

from __future__ import annotations

import logging
import secrets

from compute.work import Work
from db import networks
from db.errors import RowNotFoundError
from db.networks import HeldAddress

LOG = logging.getLogger(__name__)


def generate_mac() -> str:
    """A locally administered MAC of 2011.2's range, 02:16:3e:00:00:00 to 02:16:3e:7f:ff:ff."""
    high, middle, low = secrets.token_bytes(3)
    return f"02:16:3e:{high & 0x7F:02x}:{middle:02x}:{low:02x}"


def allocate(work: Work, *, stub_network: bool) -> None:
    """Give the instance an address of each of its networks unless it has one; raises AddressPoolEmptyError."""
    more: list[int] = work.args.get("networks", [])
    if stub_network or len(work.dossier.addresses) > len(more):
        return
    network_id = work.instance.network_id or _default_network(work)
    if network_id is None:
        LOG.info("instance %d: there is no network for project %s", work.instance.id, work.instance.project_id)
        return
    # In this order they are read from the database ever after.
    work.learn(addresses=tuple(_claim(work, wanted) for wanted in sorted({network_id, *more})))


def _claim(work: Work, network_id: int) -> HeldAddress:
    wanted = (network_id, work.instance.id, generate_mac())
    claimed = None
    if work.db.dialect == "postgresql":
        claimed = work.db.run_single(networks.claim_at_once, *wanted)
    if claimed is None:
        claimed = work.db.run(networks.claim, *wanted)
    return HeldAddress(work.instance.id, claimed.network, claimed.address, claimed.mac)


def _default_network(work: Work) -> int | None:
    try:
        return work.db.query(networks.default_for, work.instance.project_id).id
    except RowNotFoundError:
        return None
