"""The simulator's table is the published data model's, and calls are held against that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.xenapi import Pool, violations
from tests.fakes.xenapi.calls import HANDLERS
from tests.fakes.xenapi.check import PUBLISHED
from tests.fakes.xenapi.derive import TABLE, table_of
from tests.fakes.xenapi.model import Model, load, parse_type
from tests.fakes.xenapi.pool import Call
from tests.unit.xenapi_simulator.conftest import Client

needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the published data model is not beside the project"
)
REF = "OpaqueRef:1"


@needs_published
def test_the_table_is_derived_from_the_published_model() -> None:
    model, optional = (json.loads((PUBLISHED / name).read_text()) for name in ("xenapi.json", "optional_args.json"))
    assert TABLE.read_text() == table_of(model, optional, set(HANDLERS)), "run tests.fakes.xenapi.derive"


def test_every_handler_serves_a_message_of_the_table() -> None:
    assert not [name for name in HANDLERS if load().message(name) is None]


def test_every_message_has_a_handler_or_is_an_accessor() -> None:
    model = load()
    made = {f"{one.name}.{name}" for one in model.classes.values() for name in ("create", "destroy")}
    made &= {f"{one.name}.{message}" for one in model.classes.values() for message in one.messages}
    assert made - set(HANDLERS) == {"console.create", "console.destroy"}


def test_enums_of_the_table_are_known() -> None:
    model: Model = load()
    kinds = [field.type for one in model.classes.values() for field in one.fields.values()]
    assert not [kind.name for kind in kinds if kind.kind == "enum" and kind.name not in model.enums]


def test_a_map_of_maps_is_read() -> None:
    kind = parse_type("(VM ref -> (string -> string) map) map")
    assert (kind.inner[0].kind, kind.inner[1].kind, kind.inner[1].inner[1].kind) == ("ref", "map", "string")


@needs_published
@pytest.mark.parametrize(
    ("method", "args", "complaint"),
    [
        ("VM.nonsense", (), "does not exist"),
        ("host.get_uncooperative_domains", (), "does not exist"),
        ("VBD.get_metrics", (REF,), "is removed"),
        ("VM.start", (REF, False), "2 arguments"),
        ("VM.start", ("one", False, False), "no reference"),
        ("VM.set_VCPUs_max", (REF, 2), "no int"),
        ("VM.set_VCPUs_max", (REF, "two"), "no decimal number"),
        ("VM.set_domain_type", (REF, "lxc"), "none of"),
        ("VM.set_other_config", (REF, {"key": 1}), "no string"),
        ("Async.session.logout", (), "no Async form"),
        ("VDI.create", ({"flavour": "salt"},), "flavour, which is no field"),
        ("VDI.create", ({"SR": REF},), "lacks virtual_size"),
    ],
)
def test_a_call_that_is_not_by_the_model_is_complained_about(
    method: str, args: tuple[Any, ...], complaint: str
) -> None:
    assert any(complaint in one for one in violations([Call(method, args, "", "alpha")]))


@needs_published
def test_calls_by_the_model_are_not_complained_about(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    xapi.vbd(vm, xapi.vdi())
    xapi.vif(vm)
    xapi.wait(xapi("Async.VM.start", vm, False, False))
    xapi("event.from", ["vm"], "", 0.0)
    xapi.upload(xapi.vdi(), b"data")
    assert violations(pool.calls) == []


def test_without_the_published_model_what_was_refused_as_misuse_is_complained_about(
    xapi: Client, tmp_path: Path
) -> None:
    xapi.refused("VM.start", REF, False, False)
    xapi.refused("VM.nonsense")
    xapi.refused("VM.set_VCPUs_max", REF, 2)
    xapi.refused("VM.create", {})
    absent = violations(xapi.pool.calls, tmp_path / "absent")
    assert [one.partition(":")[0] for one in absent] == ["VM.nonsense", "VM.set_VCPUs_max", "VM.create"]


def test_a_pool_starts_at_once(tmp_path: Path) -> None:
    with Pool(tmp_path) as pool:
        assert [host.is_master for host in pool.hosts] == [True, False]
        assert pool.vms() == {}
        assert pool.leftovers() == {}
