"""SchedulerManager: the verbs of topic `scheduler`, for clients that cast there as Nova 2011.2's did.

Placing is placing.py's; what else a scheduler did there (resize, live migration) is the API's, done in this process.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Mapping
from typing import Any

from compute.api import API
from compute.context import RequestContext
from compute.errors import InvalidInputError
from compute.messaging.dispatch import exposed
from compute.ops import lifecycle
from compute.ordering import Accepted
from compute.placing import Placing

LOG = logging.getLogger(__name__)
VERSION = "1.0"
"""1.0: run_instance, prep_resize, live_migration, show_host_resources and update_service_capabilities with 2011.2's
arguments, and create_instance."""


class SchedulerManager:
    """The verbs of topic `scheduler`."""

    def __init__(self, api: API, placing: Placing, compute_topic: str) -> None:
        self._api, self._placing, self._compute_topic = api, placing, compute_topic

    @exposed
    def run_instance(
        self,
        context: RequestContext,
        instance_id: int,
        topic: str = "compute",
        availability_zone: str | None = None,
        injected_files: list[Any] | None = None,
        action_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Choose a host for an instance and have it built there; without one in `scheduler_wait` s, it is `error`."""
        self._require_compute(topic)
        if action_id is not None:
            self._placing.order(context, instance_id, action_id)
            return
        if injected_files:
            self._placing.require_unplaced(instance_id)
            lifecycle.keep_injected_files(self._api.db, self._api.sealer, instance_id, injected_files)
        self._placing.row(context, instance_id, availability_zone)

    @exposed
    def create_instance(
        self,
        context: RequestContext,
        image: int | str,
        instance_type: int | str | None = None,
        min_count: int = 1,
        max_count: int | None = None,
        display_name: str | None = None,
        display_description: str | None = None,
        kernel: str | None = None,
        ramdisk: str | None = None,
        key_name: str | None = None,
        security_groups: list[Any] | None = None,
        availability_zone: str | None = None,
        host: str | None = None,
        network: str | None = None,
        user_data: str | None = None,
        metadata: dict[str, Any] | None = None,
        injected_files: list[Any] | None = None,
        server_group: str | None = None,
    ) -> list[dict[str, Any]]:
        """Accept and place new instances for a client that has nothing but the bus: [{instance_id, action_id}].

        user_data and the contents in injected_files ([path, contents] each) are base64.
        """
        accepted = self._api.create(
            context,
            image=str(image),
            instance_type=None if instance_type is None else str(instance_type),
            min_count=min_count,
            max_count=max_count,
            display_name=display_name,
            display_description=display_description,
            kernel=kernel,
            ramdisk=ramdisk,
            key_name=key_name,
            security_groups=_names("security_groups", security_groups or []),
            availability_zone=availability_zone,
            host=host,
            network=network,
            user_data=None if user_data is None else _decoded("user_data", user_data),
            metadata=_texts("metadata", metadata or {}),
            injected_files=[_file(one) for one in injected_files or []],
            server_group=server_group,
        )
        return [_answer(one) for one in accepted]

    @exposed
    def prep_resize(
        self,
        context: RequestContext,
        instance_id: int,
        flavor_id: int | str,
        topic: str = "compute",
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Choose a host for an instance at its new size and begin the resize there."""
        self._require_compute(topic)
        return _answer(self._api.resize(context, instance_id, str(flavor_id)))

    @exposed
    def live_migration(
        self, context: RequestContext, instance_id: int, dest: str, topic: str = "compute", **kwargs: Any
    ) -> dict[str, Any]:
        """Check both hosts and have the source move a running instance to `dest`."""
        self._require_compute(topic)
        return _answer(self._api.live_migration(context, instance_id, dest))

    @exposed
    def show_host_resources(self, context: RequestContext, host: str) -> dict[str, Any]:
        """{resource: totals and used, usage: {project: its share}}."""
        return dict(self._api.describe_resource(context, host))

    @exposed
    def update_service_capabilities(
        self, context: RequestContext, service_name: str, host: str, capabilities: Any = None
    ) -> None:
        """2011.2's hosts told schedulers this; here the database knows what hosts can do."""
        LOG.debug("capabilities of %.80r on %.80r not needed", service_name, host)

    def _require_compute(self, topic: str) -> None:
        if topic != self._compute_topic:
            raise InvalidInputError(f"topic {topic!r:.40}: this scheduler places for {self._compute_topic}")


def _answer(accepted: Accepted) -> dict[str, Any]:
    return {"instance_id": accepted.instance_id, "action_id": accepted.action_id}


def _names(what: str, values: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{what}: must be a list of names")
    return tuple(values)


def _texts(what: str, values: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in values.values()):
        raise InvalidInputError(f"{what}: values must be text")
    return dict(values)


def _decoded(what: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(f"{what}: not base64") from exc


def _file(value: Any) -> tuple[str, bytes]:
    if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
        return value[0], _decoded("injected_files", value[1])
    raise InvalidInputError("injected_files: each must be [path, base64 contents]")
