"""Accepting new instances: validation, quota, placement, record and order, in one transaction for all of a request."""

from __future__ import annotations

import base64
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oslo_config.cfg import ConfigOpts

from compute import block_devices, orders, valid
from compute.block_devices import BlockDevice
from compute.context import RequestContext
from compute.errors import ImageNotFoundError, InvalidInputError, InvalidStateError, QuotaError
from compute.orders import Bell
from compute.policy import may_see, project_filter, require_admin
from compute.scheduler import Scheduler, group_facts
from compute.scheduling.request import Request, split_zone
from compute.sealing import Sealer
from compute.states import Task, Vm
from db import actions, boot, images, instance_metadata, instances, key_pairs, security_groups, server_groups
from db.boot import BootFacts
from db.errors import DuplicateRowError
from db.images import Image
from db.instance_types import InstanceType
from db.session import Database, Tx, utcnow

MAX_USER_DATA_BYTES = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRequest:
    """What a caller asks for. instance_type, image and the like are names or ids; injected_files: (path, content).

    block_device_mapping: as compute.block_devices reads it. With a volume at /dev/vda, the image may be left out, or
    lends its kernel, ramdisk and properties. networks: an interface on each, beside that of `network`.
    """

    image: str | None = None
    instance_type: str | None = None
    min_count: int = 1
    max_count: int | None = None
    display_name: str | None = None
    display_description: str | None = None
    kernel: str | None = None
    ramdisk: str | None = None
    key_name: str | None = None
    security_groups: Sequence[str] = ()
    availability_zone: str | None = None
    host: str | None = None
    network: str | None = None
    networks: Sequence[str] = ()
    user_data: bytes | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    injected_files: Sequence[tuple[str, bytes]] = field(default=(), repr=False)
    server_group: str | None = None
    block_device_mapping: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Flags that bound a request; -1 means no limit."""

    default_instance_type: str
    null_kernel: str
    password_length: int
    scheduler_mode: str
    service_down_time: float
    images_path: str
    quota_instances: int
    quota_cores: int
    quota_metadata_items: int
    quota_max_injected_files: int
    quota_max_injected_file_content_bytes: int
    quota_max_injected_file_path_bytes: int

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Limits:
        """Read every field from the option of its name."""
        return cls(**{name: getattr(conf, name) for name in cls.__slots__})


class Creator:
    """Accepts boot requests."""

    def __init__(self, db: Database, scheduler: Scheduler, sealer: Sealer, limits: Limits) -> None:
        self._db, self._scheduler, self._sealer, self._limits = db, scheduler, sealer, limits

    def accept(self, context: RequestContext, request: BootRequest) -> list[Bell]:
        """Write records and orders for min_count to max_count instances, as many as the quota allows, or none at all.

        Raises InvalidInputError, QuotaError, NoValidHostError, that a volume is not to be had, or that something it
        names is not found.
        """
        self._check(request)
        devices = block_devices.read(request.block_device_mapping)
        _check_devices(request, devices)
        zone, force_host = split_zone(request.availability_zone, is_admin=context.is_admin)
        if request.host is not None:
            require_admin(context, "choosing a host")
        draft = _Draft(request, devices, zone, request.host or force_host, self._sealed_files(request))
        try:
            return self._db.run(self._write, context, draft)
        except DuplicateRowError:
            bells = self._db.query(self._written, draft)
            if not bells:
                raise
            return bells  # the commit had gone through, only its answer was lost

    def _written(self, tx: Tx, draft: _Draft) -> list[Bell]:
        if not instances.by_uuids(tx, [draft.uuid(0)]):
            return []
        return [orders.bell(self._sealer, one) for one in actions.all_by_message(tx, draft.op_id)]

    def _check(self, request: BootRequest) -> None:
        highest = request.min_count if request.max_count is None else request.max_count
        valid.whole("count", request.min_count, least=1, most=1000)
        valid.whole("max_count", highest, least=request.min_count, most=1000)
        if request.display_name is not None:
            valid.name("name", request.display_name)
        valid.text("description", request.display_description or "")
        if request.user_data is not None and len(request.user_data) > MAX_USER_DATA_BYTES:
            raise InvalidInputError(f"user data: {len(request.user_data)} bytes, at most {MAX_USER_DATA_BYTES}")
        valid.properties("metadata", request.metadata)
        _within(self._limits.quota_metadata_items, len(request.metadata), "metadata items")
        _within(self._limits.quota_max_injected_files, len(request.injected_files), "injected files")
        for path, content in request.injected_files:
            file_args(self._limits, path, content)

    def _sealed_files(self, request: BootRequest) -> str | None:
        if not request.injected_files:
            return None
        return self._sealer.seal([[path, base64.b64encode(data).decode()] for path, data in request.injected_files])

    def _write(self, tx: Tx, context: RequestContext, draft: _Draft) -> list[Bell]:
        request = draft.request
        facts = boot.facts(
            tx,
            user_id=context.user_id,
            project_id=context.project_id,
            instance_type=request.instance_type or self._limits.default_instance_type,
            image=request.image,
            limits={"instances": self._limits.quota_instances, "cores": self._limits.quota_cores},
        )
        if facts.image is not None:
            _check_image(context, facts.image, facts.flavor, has_root=draft.has_own_root)
        draft.bind_to(block_devices.host_of(tx, context, draft.devices))
        count = self._allowed(facts, request)
        common = self._common_columns(tx, context, draft, facts)
        group_ids = _group_ids(tx, context, request, facts)
        hosts = self._hosts(tx, context, draft, facts, count)
        return [self._one(tx, context, draft, common, group_ids, number, hosts[number]) for number in range(count)]

    def _allowed(self, facts: BootFacts, request: BootRequest) -> int:
        """How many the quota lets through; QuotaError when fewer than min_count."""
        wanted = request.min_count if request.max_count is None else request.max_count
        allowed = wanted
        sizes = {"instances": 1, "cores": facts.flavor.vcpus}
        for resource, size in sizes.items():
            limit = facts.limits[resource]
            if limit >= 0:
                allowed = min(allowed, max(limit - facts.used[resource], 0) // size)
            if allowed < request.min_count:
                raise QuotaError(
                    f"quota exceeded: {request.min_count} x {facts.flavor.name} need {request.min_count * size} "
                    f"{resource}, {facts.used[resource]} of {limit} are in use"
                )
        return allowed

    def _hosts(
        self, tx: Tx, context: RequestContext, draft: _Draft, facts: BootFacts, count: int
    ) -> Sequence[str | None]:
        if self._limits.scheduler_mode == "rpc":
            return [None] * count
        policy, members, group_id = None, frozenset[str](), None
        if draft.request.server_group is not None:
            group_id = server_groups.find(tx, context.project_id, draft.request.server_group).id
            policy, members = group_facts(tx, group_id)
        wanted = Request(
            vcpus=facts.flavor.vcpus,
            memory_mb=facts.flavor.memory_mb,
            local_gb=draft.local_gb(facts.flavor),
            project_id=context.project_id,
            availability_zone=draft.zone,
            force_host=draft.force_host,
            server_group_id=group_id,
            group_policy=policy,
            group_hosts=members,
        )
        return self._scheduler.place_many(tx, [wanted] * count)

    def _common_columns(self, tx: Tx, context: RequestContext, draft: _Draft, facts: BootFacts) -> dict[str, Any]:
        request, flavor, image = draft.request, facts.flavor, facts.image
        key = key_pairs.get(tx, context.user_id, request.key_name) if request.key_name else None
        group = server_groups.find(tx, context.project_id, request.server_group) if request.server_group else None
        project_id = project_filter(context)
        network_id = facts.default_network_id
        if request.network:
            network_id = boot.resolve_network(tx, request.network, project_id)
        draft.network_ids = [boot.resolve_network(tx, key, project_id) for key in request.networks]
        return {
            "display_description": request.display_description,
            "user_id": context.user_id,
            "project_id": context.project_id,
            "image_id": image.id if image else None,
            "kernel_id": self._part(tx, request.kernel, image.kernel_id if image else None),
            "ramdisk_id": self._part(tx, request.ramdisk, image.ramdisk_id if image else None),
            "instance_type_id": flavor.id,
            "memory_mb": flavor.memory_mb,
            "vcpus": flavor.vcpus,
            "local_gb": draft.local_gb(flavor),
            "swap": flavor.swap,
            "ephemeral_gb": flavor.ephemeral_gb,
            "vm_state": Vm.BUILDING.value,
            "task_state": Task.SPAWNING.value,
            "availability_zone": draft.zone,
            "reservation_id": draft.reservation_id,
            "os_type": image.properties.get("os_type") if image else None,
            "key_name": request.key_name,
            "key_data": key.public_key if key else None,
            "user_data": base64.b64encode(request.user_data).decode() if request.user_data else None,
            "sealed_files": draft.sealed_files,
            "server_group_id": group.id if group else None,
            "network_id": network_id,
            "scheduled_at": utcnow(),
        }

    def _part(self, tx: Tx, key: str | None, own: int | None) -> int | None:
        """The kernel or ramdisk: the one asked for, or the image's; null_kernel means none."""
        if key is None:
            return own
        return None if key == self._limits.null_kernel else images.find(tx, key).id

    def _one(
        self,
        tx: Tx,
        context: RequestContext,
        draft: _Draft,
        common: Mapping[str, Any],
        group_ids: Sequence[int],
        number: int,
        host: str | None,
    ) -> Bell:
        name = draft.display_name(number)
        own = {"uuid": draft.uuid(number), "display_name": name, "hostname": hostname(name, draft.uuid(number))}
        instance_id = instances.create(tx, {**common, **own, "host": host, "launch_index": number})
        block_devices.reserve(tx, instance_id, draft.devices)
        wanted = {"zone": draft.zone, "force_host": draft.force_host, "networks": draft.network_ids or None}
        args = {key: value for key, value in wanted.items() if value is not None}
        row = orders.journal_row(
            tx, context, Task.SPAWNING, instance_id, host=host, args=orders.pack(self._sealer, args),
            message_id=draft.op_id,
        )  # fmt: skip
        action_id = actions.create(tx, row)
        security_groups.associate(tx, instance_id, group_ids)
        if draft.request.metadata:
            instance_metadata.create(tx, [instance_id], draft.request.metadata)
        return Bell(id=action_id, instance_id=instance_id, host=host, step="run_instance", args=args)


class _Draft:
    """A request with what is made up for it once, so that a repeated transaction writes the same."""

    def __init__(
        self,
        request: BootRequest,
        devices: tuple[BlockDevice, ...],
        zone: str | None,
        force_host: str | None,
        sealed_files: str | None,
    ) -> None:
        self.request, self.devices, self.zone = request, devices, zone
        self.force_host, self.sealed_files = force_host, sealed_files
        self.has_own_root = not block_devices.boots_from_volume(devices)
        self.reservation_id = "r-" + base64.b32encode(secrets.token_bytes(5)).decode().lower()
        self.op_id = str(uuid.uuid4())
        self.network_ids: list[int] = []
        self._uuids: list[str] = []

    def local_gb(self, flavor: InstanceType) -> int:
        """The disk that it takes of its host: with a volume as its root, only the second one."""
        return flavor.local_gb if self.has_own_root else flavor.ephemeral_gb

    def bind_to(self, host: str | None) -> None:
        """Place it where its volumes are; InvalidInputError when somewhere else was asked for."""
        if host is None:
            return
        if self.force_host not in {None, host}:
            raise InvalidInputError(f"its volumes are on host {host}, not on {self.force_host}")
        self.force_host = host

    def uuid(self, number: int) -> str:
        """The uuid of the request's instance `number`."""
        while len(self._uuids) <= number:
            self._uuids.append(str(uuid.uuid4()))
        return self._uuids[number]

    def display_name(self, number: int) -> str:
        """The name asked for, numbered when there are several; a made-up one when none was."""
        name = self.request.display_name or f"server-{self.uuid(number)[:8]}"
        several = (self.request.max_count or self.request.min_count) > 1
        return f"{name}-{number + 1}" if several and self.request.display_name else name


def hostname(name: str, instance_uuid: str) -> str:
    """A DNS label made from a display name."""
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63].strip("-")
    return label or f"host-{instance_uuid[:8]}"


def file_args(limits: Limits, path: str, contents: bytes) -> dict[str, str]:
    """The arguments of inject_file; QuotaError or InvalidInputError when path or content will not do."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise InvalidInputError(f"file path {path!r:.80}: must be absolute, without '..'")
    _within(limits.quota_max_injected_file_path_bytes, len(path.encode(errors="replace")), "bytes of file path")
    _within(limits.quota_max_injected_file_content_bytes, len(contents), "bytes of file content")
    return {"path": path, "file_contents": base64.b64encode(contents).decode(), "encoding": "base64"}


def _within(limit: int, number: int, what: str) -> None:
    if 0 <= limit < number:
        raise QuotaError(f"quota exceeded: {number} {what}, {limit} are allowed")


def _check_devices(request: BootRequest, devices: Sequence[BlockDevice]) -> None:
    if request.image is None and not block_devices.boots_from_volume(devices):
        raise InvalidInputError("nothing to boot from: name an image, or map a volume to /dev/vda")
    if devices and (request.max_count or request.min_count) > 1:
        raise InvalidInputError("block device mapping: a volume is of one instance, several are asked for")


def _check_image(context: RequestContext, image: Image, flavor: InstanceType, *, has_root: bool) -> None:
    if not (image.is_public or image.project_id is None or may_see(context, image.project_id)):
        raise ImageNotFoundError(f"no image {image.name}")
    if image.status != "active":
        raise InvalidStateError(f"image {image.name} is {image.status}, not active")
    if image.disk_format in {"aki", "ari"}:
        raise InvalidInputError(f"image {image.name} is a kernel or ramdisk ({image.disk_format}), not a disk")
    root_gb = flavor.local_gb - flavor.ephemeral_gb
    if has_root and 0 < root_gb < image.min_disk_gb:
        raise InvalidInputError(
            f"image {image.name} needs a disk of {image.min_disk_gb} GiB, {flavor.name} has {root_gb}"
        )


def _group_ids(tx: Tx, context: RequestContext, request: BootRequest, facts: BootFacts) -> list[int]:
    if not request.security_groups:
        return [facts.default_group_id]
    return [group.id for group in security_groups.resolve(tx, context.project_id, list(request.security_groups))]
