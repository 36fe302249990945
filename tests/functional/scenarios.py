"""What every way of running the daemons must be able to do: functions of a deployment with the hosts h1 and h2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compute.errors import InstanceNotFoundError, InvalidStateError
from compute.states import Vm
from tests.functional.harness import ADMIN, Deployment

Scenario = Callable[[Any], None]


def there_and_back(cloud: Deployment) -> None:
    """Every state that one action leads to and another one back from."""
    instance_id = cloud.boot()
    for there, state, back in (
        ("pause", Vm.PAUSED, "unpause"),
        ("suspend", Vm.SUSPENDED, "resume"),
        ("stop", Vm.STOPPED, "start"),
        ("rescue", Vm.RESCUED, "unrescue"),
    ):
        cloud.done(getattr(cloud.api, there)(ADMIN, instance_id))
        assert cloud.instance(instance_id).vm_state == state
        cloud.done(getattr(cloud.api, back)(ADMIN, instance_id))
        assert cloud.instance(instance_id).vm_state == Vm.ACTIVE


def on_the_spot(cloud: Deployment) -> None:
    """Actions after which an instance is as it was."""
    instance_id, api = cloud.boot(), cloud.api
    for order in (
        lambda: api.reboot(ADMIN, instance_id, soft=True),
        lambda: api.reboot(ADMIN, instance_id),
        lambda: api.set_admin_password(ADMIN, instance_id, "hush"),
        lambda: api.inject_file(ADMIN, instance_id, "/etc/motd", b"hello"),
        lambda: api.reset_network(ADMIN, instance_id),
        lambda: api.inject_network_info(ADMIN, instance_id),
        lambda: api.snapshot(ADMIN, instance_id, f"shot-{instance_id}"),
    ):
        cloud.done(order())
        assert cloud.instance(instance_id).vm_state == Vm.ACTIVE


def answers(cloud: Deployment) -> None:
    """Calls return what hosts say."""
    instance_id, api = cloud.boot(), cloud.api
    assert isinstance(api.get_console_output(ADMIN, instance_id), str)
    assert set(api.get_vnc_console(ADMIN, instance_id)) >= {"token", "host", "port"}
    assert api.get_diagnostics(ADMIN, instance_id)
    api.update_available_resource(ADMIN, "h1")
    assert api.describe_resource(ADMIN, "h1")["resource"]["vcpus"] > 0


def locks_refuse(cloud: Deployment) -> None:
    """A wrong state is refused by name."""
    instance_id = cloud.boot()
    with pytest.raises(InvalidStateError):
        cloud.api.unpause(ADMIN, instance_id)
    with pytest.raises(InvalidStateError):
        cloud.call(str(cloud.instance(instance_id).host), "unpause_instance", instance_id=instance_id)
    with pytest.raises(InstanceNotFoundError):
        cloud.call("h1", "get_lock", instance_id=999999)


def moves(cloud: Deployment) -> None:
    """Live migration, a resize that is reverted, and one that is confirmed."""
    instance_id, api = cloud.boot(host="h1"), cloud.api
    cloud.done(api.live_migration(ADMIN, instance_id, "h2"))
    assert cloud.instance(instance_id).host == "h2"
    cloud.done(api.resize(ADMIN, instance_id, "m1.small"))
    cloud.done(api.revert_resize(ADMIN, instance_id))
    assert (cloud.instance(instance_id).host, cloud.instance(instance_id).memory_mb) == ("h2", 512)
    cloud.done(api.resize(ADMIN, instance_id, "m1.small"))
    cloud.done(api.confirm_resize(ADMIN, instance_id))
    assert (cloud.instance(instance_id).host, cloud.instance(instance_id).memory_mb) == ("h1", 2048)


def many_at_once(cloud: Deployment) -> None:
    """Forty boots together, then forty deletes."""
    accepted = cloud.api.create(ADMIN, image="tiny", instance_type="m1.tiny", min_count=40)
    for one in accepted:
        cloud.done(one, timeout_s=60)
    for gone in [cloud.api.delete(ADMIN, one.instance_id) for one in accepted]:
        cloud.done(gone, timeout_s=60)
    assert {cloud.instance(one.instance_id).vm_state for one in accepted} == {Vm.DELETED}


SCENARIOS: tuple[Scenario, ...] = (there_and_back, on_the_spot, answers, locks_refuse, moves, many_at_once)
