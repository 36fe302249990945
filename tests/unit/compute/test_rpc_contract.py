"""The RPC contract: what the daemons let the bus call may grow, but not change behind a client's back.

After a change on purpose: raise VERSION, say in rpcapi's docstring what is new, and run
`python -m tests.unit.compute.test_rpc_contract` to write the golden files again.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compute import rpcapi, scheduler_manager
from compute.manager import ComputeManager
from compute.messaging.dispatch import Endpoint, verbs_of
from compute.scheduler_manager import SchedulerManager

GOLDEN = Path(__file__).parents[2] / "golden/rpc"
CONTRACTS = {
    "compute-1.x.json": (ComputeManager, rpcapi.VERSION),
    "scheduler-1.x.json": (SchedulerManager, scheduler_manager.VERSION),
}
ACTUAL_2011_2 = """
run_instance instance_id injected_files
terminate_instance instance_id
reboot_instance instance_id
snapshot_instance instance_id image_id
set_admin_password instance_id new_pass
inject_file instance_id path file_contents
rescue_instance instance_id
unrescue_instance instance_id
pause_instance instance_id
unpause_instance instance_id
suspend_instance instance_id
resume_instance instance_id
get_diagnostics instance_id
lock_instance instance_id
unlock_instance instance_id
get_lock instance_id
reset_network instance_id
inject_network_info instance_id
get_console_output instance_id
get_ajax_console instance_id
get_vnc_console instance_id
attach_volume instance_id volume_id mountpoint
detach_volume instance_id volume_id
prep_resize instance_id flavor_id
resize_instance instance_id migration_id
finish_resize instance_id migration_id disk_info
confirm_resize instance_id migration_id
revert_resize instance_id migration_id
finish_revert_resize instance_id migration_id
refresh_security_group_rules security_group_id
refresh_security_group_members security_group_id
refresh_provider_fw_rules
compare_cpu cpu_info
create_shared_storage_test_file
check_shared_storage_test_file filename
cleanup_shared_storage_test_file filename
update_available_resource
pre_live_migration instance_id time
live_migration instance_id dest
get_console_topic
get_network_topic
get_console_pool_info console_type
start_instance instance_id
stop_instance instance_id
"""
IN_PROCESS = {"post_live_migration", "recover_live_migration", "periodic_tasks", "init_host", "_poll_instance_states"}


def contract(manager: type, version: str) -> dict[str, Any]:
    """Version and signatures of a manager's exposed verbs, as the golden file has them."""
    verbs = verbs_of(manager.__new__(manager))
    return {"version": version, "verbs": {name: _arguments(verb) for name, verb in sorted(verbs.items())}}


def _arguments(verb: Any) -> dict[str, Any]:
    found = dict(inspect.signature(verb).parameters)
    del found["context"]
    return {name: _argument(one) for name, one in found.items()}


def _argument(parameter: inspect.Parameter) -> dict[str, Any]:
    told: dict[str, Any] = {"type": str(parameter.annotation)}
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        return {**told, "more": True}
    return told if parameter.default is inspect.Parameter.empty else {**told, "default": parameter.default}


def changes(golden: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Verbs that are not as the golden file has them."""
    return sorted(
        name for name in {*golden["verbs"], *now["verbs"]} if golden["verbs"].get(name) != now["verbs"].get(name)
    )


def breaks(golden: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a client of the golden version uses and would miss: a verb, an argument, or a type or default as it was."""
    missing = []
    for verb, arguments in golden["verbs"].items():
        ours = now["verbs"].get(verb, {})
        missing += [f"{verb}.{name}" for name, one in arguments.items() if ours.get(name) != one]
        new = [one for name, one in ours.items() if name not in arguments]
        missing += [f"{verb}: a new argument must have a default" for one in new if not {"default", "more"} & set(one)]
    return missing


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_verb_changes_only_with_the_version(name: str) -> None:
    golden = json.loads((GOLDEN / name).read_text())
    now = contract(*CONTRACTS[name])
    changed = changes(golden, now)
    if golden["version"] == now["version"]:
        assert not changed, f"raise the version (minor: additions; major: all else), then renew {name}: {changed}"
    assert golden["version"] == now["version"], f"renew {name}: see this file's docstring"


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_minor_version_only_adds(name: str) -> None:
    golden = json.loads((GOLDEN / name).read_text())
    now = contract(*CONTRACTS[name])
    if golden["version"].split(".")[0] == now["version"].split(".")[0]:
        assert breaks(golden, now) == []


def test_the_history_tells_the_current_version() -> None:
    assert f"\n    {rpcapi.VERSION}  " in str(rpcapi.__doc__)
    assert str(scheduler_manager.VERSION) in Path(str(scheduler_manager.__file__)).read_text()


@pytest.mark.parametrize("line", ACTUAL_2011_2.strip().splitlines())
def test_a_verb_of_2011_2_is_there_with_its_argument_names(line: str) -> None:
    verb, *names = line.split()
    found = contract(*CONTRACTS["compute-1.x.json"])["verbs"][verb]
    assert list(found)[: len(names)] == names
    assert all("default" in found[name] or "more" in found[name] for name in list(found)[len(names) :])


def test_in_process_callbacks_of_2011_2_are_not_on_the_bus() -> None:
    assert not IN_PROCESS & set(verbs_of(ComputeManager.__new__(ComputeManager)))


@pytest.mark.parametrize("manager", [ComputeManager, SchedulerManager])
def test_nothing_private_or_inherited_is_a_verb(manager: type) -> None:
    verbs = Endpoint(manager.__new__(manager), "1.0").hints
    assert not [name for name in verbs if name.startswith("_") or hasattr(object, name)]
    assert set(verbs) <= set(vars(manager))


class Child(ComputeManager):
    """Inherits every verb."""


def test_a_subclass_exposes_nothing_that_it_inherits() -> None:
    assert verbs_of(Child.__new__(Child)) == {}


def test_a_changed_argument_is_seen() -> None:
    golden = contract(*CONTRACTS["compute-1.x.json"])
    now = json.loads(json.dumps(golden))
    now["verbs"]["pause_instance"]["instance_id"]["type"] = "str"
    now["verbs"]["get_lock"]["force"] = {"type": "bool"}
    assert changes(golden, now) == ["get_lock", "pause_instance"]
    assert breaks(golden, now) == ["get_lock: a new argument must have a default", "pause_instance.instance_id"]


if __name__ == "__main__":
    for golden_name, (kind, current) in CONTRACTS.items():
        (GOLDEN / golden_name).write_text(json.dumps(contract(kind, current), indent=1) + "\n")
