"""Volumes: made here, or registered where somebody else made them. Attaching and detaching is compute.api's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oslo_config.cfg import ConfigOpts

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import ComputeError, ConfigError, ConflictError, InvalidInputError, QuotaError, VolumeNotFoundError
from compute.policy import may_see, project_filter, require_admin
from compute.sealing import Sealer
from db import quotas, volumes
from db.session import Database, Tx
from db.volumes import Attachment, Volume
from virt import volume_manager
from virt.errors import VirtError
from virt.volumes import login as login_text
from virt.volumes import source

_LARGEST_GB = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a new volume is to be.

    host: the one host that has it; None for storage that every host sees. limits: configured quotas by resource; a
    project's own replace them.
    """

    size_gb: int
    name: str | None = None
    description: str | None = None
    host: str | None = None
    limits: dict[str, int] | None = None

    def columns(self, context: RequestContext) -> dict[str, Any]:
        """The columns of its record. Raises InvalidInputError."""
        return {
            "user_id": context.user_id,
            "project_id": context.project_id,
            "size": valid.whole("volume size (GiB)", self.size_gb, least=1, most=_LARGEST_GB),
            "display_name": None if self.name is None else valid.name("volume name", self.name),
            "display_description": None if self.description is None else valid.text("description", self.description),
            "host": self.host,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes volumes and removes them, on `host`: the machine that this process is on."""

    manager: volume_manager.VolumeManager
    name_template: str
    host: str

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Maker:
        """The one that the flag `volume_manager` names. Raises ConfigError."""
        try:
            manager = volume_manager.load(conf)
        except VirtError as exc:
            raise ConfigError(str(exc)) from exc
        return cls(manager=manager, name_template=conf.volume_name_template, host=conf.host)

    def remove(self, location: str | None, host: str | None) -> None:
        """Remove a volume's bytes; succeed if they are gone. Raises ConflictError when another host has them."""
        if host not in {None, self.host}:
            raise ConflictError(f"{location} is on host {host}: only there it can be removed, this is {self.host}")
        if location:
            try:
                self.manager.delete(location)
            except VirtError as exc:
                raise ComputeError(str(exc)) from exc


def create(db: Database, context: RequestContext, maker: Maker, wish: Wish) -> Volume:
    """Make a volume that reads as zeros. On an error neither its bytes nor its record are left.

    Raises InvalidInputError, QuotaError, or ComputeError when there is no room for it.
    """
    if wish.host not in {None, maker.host}:
        raise InvalidInputError(f"a volume of host {wish.host} is made there: this is {maker.host}")
    values = {**wish.columns(context), "status": "creating", "managed": True}
    with translated():
        volume_id = db.run(_create, values, wish.limits or {}, maker)
    try:
        maker.manager.create(maker.name_template % volume_id, values["size"])
    except BaseException as exc:
        _forget(db, volume_id)
        if isinstance(exc, VirtError):
            raise ComputeError(f"volume of {values['size']} GiB: {exc}") from exc
        raise
    if not db.run(volumes.set_status, volume_id, "creating", "available"):
        maker.remove(maker.manager.location(maker.name_template % volume_id), None)
        raise ConflictError(f"volume {volume_id} was deleted while it was made")
    with translated():
        return db.query(volumes.get, volume_id)


def register(
    db: Database,
    context: RequestContext,
    wish: Wish,
    *,
    location: str,
    login: tuple[str, str] | None = None,
    sealer: Sealer | None = None,
) -> Volume:
    """Record a volume that is there already. For administrators: its location may be anything that hosts can reach.

    location: `protocol:source` as virt.volumes describes it, such as file:/srv/data.raw or nbd://host:10809/export.
    login: user and secret for its server; the secret is sealed with `sealer`. Raises InvalidInputError, QuotaError.
    """
    require_admin(context, "registering a volume")
    values = {
        **wish.columns(context),
        "status": "available",
        "provider_location": valid.text("location", location, longest=1024),
        "sealed_auth": _sealed(location, login, sealer),
    }
    with translated():
        volume_id = db.run(_create, values, wish.limits or {})
        return db.query(volumes.get, volume_id)


def get_all(db: Database, context: RequestContext) -> list[Volume]:
    """The project's volumes by id; every project's for an administrator."""
    with translated():
        return db.query(volumes.list_all, project_id=project_filter(context))


def get(db: Database, context: RequestContext, volume_id: int) -> Volume:
    """A volume by id; VolumeNotFoundError when there is none that the caller may see."""
    with translated():
        volume = db.query(volumes.get, volume_id)
    if not may_see(context, volume.project_id):
        raise VolumeNotFoundError(f"no volume {volume_id}")
    return volume


def attachment(db: Database, volume: Volume) -> Attachment | None:
    """Where a volume is attached, or being attached or detached."""
    with translated():
        return db.query(volumes.attachment_of, volume.id)


def delete(db: Database, context: RequestContext, maker: Maker, volume_id: int) -> Volume:
    """End a volume that no instance has: what was made goes, what was registered stays for whoever made it.

    Doing it again ends a delete that was interrupted. Raises InUseError, InvalidStateError, ComputeError.
    """
    volume = get(db, context, volume_id)
    if volume.managed and volume.host not in {None, maker.host}:
        raise ConflictError(f"volume {volume.id} is on host {volume.host}: delete it there, this is {maker.host}")
    with translated():
        db.run(volumes.begin_delete, volume.id)
        if volume.managed:
            maker.remove(volume.provider_location, volume.host)
        db.run(volumes.delete, volume.id)
    return volume


def _create(tx: Tx, values: dict[str, Any], limits: dict[str, int], maker: Maker | None = None) -> int:
    project_id = values["project_id"]
    allowed = {**limits, **quotas.get(tx, project_id)}
    usage = quotas.usage(tx, project_id)
    for resource, wanted in (("volumes", usage.volumes + 1), ("gigabytes", usage.gigabytes + values["size"])):
        if 0 <= allowed.get(resource, -1) < wanted:
            raise QuotaError(f"project {project_id} may have {allowed[resource]} {resource}; this would make {wanted}")
    volume_id = volumes.create(tx, **values)
    if maker is not None:
        location = maker.manager.location(maker.name_template % volume_id)
        volumes.set_status(tx, volume_id, "creating", "creating", provider_location=location)
    return volume_id


def _forget(db: Database, volume_id: int) -> None:
    db.run(volumes.begin_delete, volume_id)
    db.run(volumes.delete, volume_id)


def _sealed(location: str, login: tuple[str, str] | None, sealer: Sealer | None) -> str | None:
    """The login as the record keeps it, once it and the location make sense together."""
    protocol, _, text = location.partition(":")
    try:
        auth = None if login is None else login_text(protocol, *login)
        source(protocol, text, auth)
    except ValueError as exc:
        raise InvalidInputError(f"volume location {location!r:.80}: {exc}") from exc
    if auth is None:
        return None
    if sealer is None:
        raise InvalidInputError("a login needs a seal")
    return sealer.seal(auth)
