"""Sessions, tasks, events, hosts, networks and measurements."""

from __future__ import annotations

import time
from typing import Any

from tests.fakes.xenapi.database import Record, now
from tests.fakes.xenapi.errors import NULL, ApiError
from tests.fakes.xenapi.lifecycle import require
from tests.fakes.xenapi.registry import Context, handler

LONGEST_WAIT_S = 3600.0
Map = dict[str, str]


@handler("session.login_with_password")
def login(x: Context, user: str, password: str, version: str = "", originator: str = "") -> str:
    """A new session."""
    known = x.pool.users.get(user)
    if known is None or known.password != password:
        raise ApiError("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
    facts = {"this_host": x.host.ref, "last_active": now(), "is_local_superuser": True, "auth_user_name": user,
             "originator": originator, "pool": False, "this_user": NULL}  # fmt: skip
    return x.db.create("session", facts)


@handler("session.logout")
def logout(x: Context) -> None:
    """End the session."""
    x.db.destroy("session", x.session)


@handler("task.create")
def create_task(x: Context, label: str, description: str) -> str:
    """A task that a transfer can complete."""
    return new_task(x, label, description)


def new_task(x: Context, label: str, description: str = "") -> str:
    """A pending task."""
    facts = {"name_label": label, "name_description": description, "created": now(), "status": "pending",
             "resident_on": x.host.ref, "type": "<none/>", "finished": now(),
             "allowed_operations": ["cancel"]}  # fmt: skip
    return x.db.create("task", facts)


def finish_task(x: Context, ref: str, status: str, result: str = "", error: list[str] | None = None) -> None:
    """End a task; succeed if somebody destroyed it."""
    if x.db.has("task", ref) and x.db.get("task", ref)["status"] in {"pending", "cancelling"}:
        x.db.update("task", ref, status=status, result=result, error_info=error or [], progress=1.0, finished=now(),
                    allowed_operations=[])  # fmt: skip


@handler("task.cancel")
def cancel_task(x: Context, ref: str) -> None:
    """Ask a task to end."""
    if x.db.get("task", ref)["status"] == "pending":
        x.db.update("task", ref, status="cancelling")
        if ref not in x.pool.working:
            finish_task(x, ref, "cancelled", error=["TASK_CANCELLED", ref])


@handler("task.destroy")
def destroy_task(x: Context, ref: str) -> None:
    """Forget a task."""
    x.db.get("task", ref)
    x.db.destroy("task", ref)


def _own_task(x: Context, ref: str) -> None:
    if x.db.get("task", ref)["status"] != "pending":
        raise ApiError("OPERATION_NOT_ALLOWED", "the task is complete")


@handler("task.set_status")
def set_status(x: Context, ref: str, value: str) -> None:
    """Complete a task of one's own."""
    _own_task(x, ref)
    x.db.update("task", ref, status=value)


@handler("task.set_progress")
def set_progress(x: Context, ref: str, value: float) -> None:
    """Say how far a task of one's own is."""
    _own_task(x, ref)
    x.db.update("task", ref, progress=value)


@handler("event.from", locked=False)
def event_from(x: Context, classes: list[str], token: str, timeout: float) -> dict[str, Any]:
    """What changed since the token, as soon as there is something, or nothing after the timeout (seconds)."""
    generation = _generation(token)
    wanted = [_subscription(one) for one in classes]
    deadline = time.monotonic() + min(timeout, LONGEST_WAIT_S)
    with x.db.changed:
        while True:
            found = [one for one in x.db.since(generation) if any(_matches(sub, one) for sub in wanted)]
            left = deadline - time.monotonic()
            if found or left <= 0 or x.pool.stopping or not x.db.has("session", x.session):
                break
            x.db.changed.wait(left)
        if not x.db.has("session", x.session):
            raise ApiError("SESSION_INVALID", x.session)
        return _batch(x, found)


def _batch(x: Context, found: list[tuple[str, str, str, int]]) -> dict[str, Any]:
    counts = {kind.lower(): len(x.db.all(kind)) for kind in x.db.model.classes}
    events = [(*one, "" if one[0] == "del" else x.db.xml(one[1], one[2])) for one in found]
    return {"events": events, "valid_ref_counts": counts, "token": f"{x.db.generation:020d},{0:020d}"}


def _generation(token: str) -> int:
    parts = (token or "0,0").split(",")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", token)
    return int(parts[0])


def _subscription(text: str) -> tuple[str, str]:
    """`*`, a class, or class/reference."""
    kind, _, ref = text.partition("/")
    if not kind or "/" in ref:
        raise ApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", text)
    return kind.lower(), ref


def _matches(subscription: tuple[str, str], event: tuple[str, str, str, int]) -> bool:
    kind, ref = subscription
    return kind in {"*", event[1].lower()} and ref in {"", event[2]}


@handler("host.disable")
def disable(x: Context, host: str) -> None:
    """Let no more VMs start there."""
    x.db.update("host", host, enabled=False)


@handler("host.enable")
def enable(x: Context, host: str) -> None:
    """Let VMs start there again."""
    x.db.update("host", host, enabled=True)


@handler("host.get_servertime")
def get_servertime(x: Context, host: str) -> str:
    """Its clock."""
    x.db.get("host", host)
    return now()


@handler("host.call_plugin")
def call_plugin(x: Context, host: str, plugin: str, _function: str, _args: Map) -> str:
    """There are no plugins."""
    x.db.get("host", host)
    raise ApiError("XENAPI_MISSING_PLUGIN", plugin)


@handler("network.create")
def create_network(x: Context, args: Record) -> str:
    """A network with a bridge of its own, and no physical interface yet."""
    bridge = args["bridge"] or f"xapi{x.pool.next_domid()}"
    if x.db.find("network", bridge=bridge):
        raise ApiError("BRIDGE_NAME_EXISTS", bridge)
    return x.db.create("network", args | {"bridge": bridge})


@handler("network.destroy")
def destroy_network(x: Context, ref: str) -> None:
    """Remove a network that nothing is on."""
    network = x.db.get("network", ref)
    if network["PIFs"]:
        raise ApiError("NETWORK_CONTAINS_PIF", *network["PIFs"])
    if attached := [vif for vif in network["VIFs"] if x.db.get("VIF", vif)["currently_attached"]]:
        raise ApiError("NETWORK_CONTAINS_VIF", *attached)
    for vif in list(network["VIFs"]):
        x.db.destroy("VIF", vif)
    x.db.destroy("network", ref)


@handler("network.set_default_locking_mode")
def set_default_locking_mode(x: Context, ref: str, value: str) -> None:
    """What interfaces do that say network_default."""
    x.db.update("network", ref, default_locking_mode=value)


@handler("VLAN.create")
def create_vlan(x: Context, tagged: str, tag: int, network: str) -> str:
    """A VLAN on one host's physical interface."""
    if not 0 <= tag < 4095:
        raise ApiError("VLAN_TAG_INVALID", str(tag))
    pif, other = x.db.get("PIF", tagged), x.db.get("network", network)
    if not pif["physical"]:
        raise ApiError("PIF_IS_VLAN", tagged)
    if x.db.find("PIF", host=pif["host"], device=pif["device"], VLAN=tag):
        raise ApiError("PIF_VLAN_EXISTS", tagged)
    for one in other["PIFs"]:
        if x.db.get("PIF", one)["host"] == pif["host"]:
            raise ApiError("NETWORK_ALREADY_CONNECTED", pif["host"], one)
    facts = {"device": pif["device"], "host": pif["host"], "network": network, "VLAN": tag, "MAC": pif["MAC"],
             "MTU": pif["MTU"], "currently_attached": True, "ip_configuration_mode": "None"}  # fmt: skip
    untagged = x.db.create("PIF", facts)
    vlan = x.db.create("VLAN", {"tagged_PIF": tagged, "untagged_PIF": untagged, "tag": tag})
    x.db.update("PIF", untagged, VLAN_master_of=vlan)
    return vlan


@handler("VLAN.destroy")
def destroy_vlan(x: Context, ref: str) -> None:
    """Remove a VLAN."""
    x.db.destroy("PIF", x.db.get("VLAN", ref)["untagged_PIF"])
    x.db.destroy("VLAN", ref)


@handler("pool.create_VLAN_from_PIF")
def create_vlan_from_pif(x: Context, tagged: str, network: str, tag: int) -> list[str]:
    """The same VLAN on every host's interface of this name."""
    device = x.db.get("PIF", tagged)["device"]
    pifs = [pif for pif in x.db.find("PIF", device=device) if x.db.get("PIF", pif)["physical"]]
    vlans = [create_vlan(x, pif, tag, network) for pif in pifs]
    return [x.db.get("VLAN", vlan)["untagged_PIF"] for vlan in vlans]


def _sources(x: Context, vm: str) -> dict[str, tuple[str, float]]:
    """Units and value of everything that is measured on a guest."""
    record = x.db.get("VM", vm)
    age = x.pool.guest(vm).age_s()
    found = {f"cpu{number}": ("(fraction)", 0.25) for number in range(record["VCPUs_at_startup"])}
    found["runstate_blocked"] = ("(fraction)", float("nan"))  # nothing was measured of it yet
    found["memory"] = ("B", float(record["memory_dynamic_max"]))
    if record["guest_metrics"] != NULL:
        found["memory_internal_free"] = ("KiB", record["memory_dynamic_max"] / 4096)
    for vbd in (x.db.get("VBD", one) for one in record["VBDs"]):
        if vbd["currently_attached"]:
            found |= {f"vbd_{vbd['device']}_{way}": ("B/s", 100.0 + age) for way in ("read", "write")}
    for vif in (x.db.get("VIF", one) for one in record["VIFs"]):
        if vif["currently_attached"]:
            found |= {f"vif_{vif['device']}_{way}": ("B/s", 10.0 + age) for way in ("rx", "tx")}
    return found


@handler("VM.get_data_sources")
def get_data_sources(x: Context, vm: str) -> list[Record]:
    """What is measured on a running VM."""
    require(x.db, "VM", vm, "data_source_op")
    return [{"name_label": name, "name_description": name, "enabled": True, "standard": True, "units": units,
             "min": 0.0, "max": 1.0 if "fraction" in units else float(1 << 40), "value": value}
            for name, (units, value) in sorted(_sources(x, vm).items())]  # fmt: skip


@handler("VM.query_data_source")
def query_data_source(x: Context, vm: str, name: str) -> float:
    """The latest value of one."""
    require(x.db, "VM", vm, "data_source_op")
    if name not in _sources(x, vm):
        raise ApiError("INTERNAL_ERROR", f"no such data source: {name}")
    return _sources(x, vm)[name][1]


@handler("host.get_data_sources")
def get_host_data_sources(x: Context, host: str) -> list[Record]:
    """What is measured on a host."""
    record = x.db.get("host_metrics", x.db.get("host", host)["metrics"])
    return [{"name_label": "memory_total_kib", "name_description": "", "enabled": True, "standard": True,
             "units": "KiB", "min": 0.0, "max": float(1 << 40), "value": record["memory_total"] / 1024}]  # fmt: skip
