"""Disks are made, copied and destroyed on storages that have an end."""

from __future__ import annotations

import pytest

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import MIB, Client

IQN = "iqn.2026-01.org.example:disks"
CONFIG = {"target": "192.0.2.1", "targetIQN": IQN, "LUNid": "1"}


def connect(xapi: Client, config: dict[str, str]) -> tuple[str, str]:
    """A storage on an iSCSI target, and its connection, not plugged yet."""
    sr = xapi("SR.introduce", "", "volume", "", "iscsi", "user", False, {})
    record = {"host": xapi.pool.master.ref, "SR": sr, "device_config": config, "other_config": {}}
    return sr, xapi("PBD.create", record)


def test_a_vhd_is_as_large_as_its_blocks(xapi: Client) -> None:
    assert xapi("VDI.get_virtual_size", xapi.vdi(size=3 * MIB + 1)) == str(4 * MIB)


def test_a_full_storage_says_44(pool: Pool, xapi: Client) -> None:
    pool.fill(pool.shared_sr)
    with pytest.raises(Exception, match="SR_BACKEND_FAILURE_44"):
        xapi.vdi()
    pool.free(pool.shared_sr)
    xapi.vdi()


def test_a_full_storage_leaves_no_half_of_a_clone(pool: Pool, xapi: Client) -> None:
    vm = xapi.vm()
    xapi.vbd(vm, xapi.vdi())
    pool.fill(pool.shared_sr)
    assert xapi.refused("VM.clone", vm, "twin")[0] == "SR_BACKEND_FAILURE_44"
    assert pool.leftovers() == {"VM": ["one"], "VDI": ["disk"]}


def test_a_disk_only_grows(xapi: Client) -> None:
    vdi = xapi.vdi()
    xapi("VDI.resize", vdi, str(8 * MIB))
    assert len(xapi.pool.vdi_bytes(vdi)) == 8 * MIB
    assert xapi.refused("VDI.resize", vdi, str(4 * MIB))[0] == "SR_BACKEND_FAILURE_79"


def test_a_disk_in_use_is_neither_grown_nor_destroyed(xapi: Client) -> None:
    vm, vdi = xapi.vm(), xapi.vdi()
    xapi.vbd(vm, vdi)
    xapi("VM.start", vm, False, False)
    assert xapi.refused("VDI.destroy", vdi) == ["VDI_IN_USE", vdi, "destroy"]
    assert xapi.refused("VDI.resize", vdi, str(8 * MIB)) == ["VDI_IN_USE", vdi, "resize"]
    xapi("VDI.snapshot", vdi)


def test_a_snapshot_keeps_what_was_there(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi()
    pool.write_vdi(vdi, 0, b"before")
    kept = xapi("VDI.snapshot", vdi)
    pool.write_vdi(vdi, 0, b"behind")
    assert (pool.vdi_bytes(vdi)[:6], pool.vdi_bytes(kept)[:6]) == (b"behind", b"before")
    assert xapi("VDI.get_snapshot_of", kept) == vdi


def test_a_copy_goes_to_another_storage(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi()
    pool.write_vdi(vdi, 0, b"data")
    copy = xapi("VDI.copy", vdi, pool.local_sr("beta"))
    assert xapi("VDI.get_SR", copy) == pool.local_sr("beta")
    assert pool.vdi_bytes(copy) == pool.vdi_bytes(vdi)


def test_a_base_copy_vanishes_when_it_has_one_child(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi()
    kept = xapi("VDI.snapshot", vdi)
    assert pool.leftovers()["VDI"].count("base copy") == 1
    xapi("VDI.destroy", kept)
    assert pool.leftovers()["VDI"] == ["disk"]
    assert "vhd-parent" not in xapi("VDI.get_sm_config", vdi)


def test_a_chain_that_never_coalesces_has_an_end(pool: Pool, xapi: Client) -> None:
    pool.settings.coalesce = False
    vdi = xapi.vdi()
    for _ in range(29):
        xapi("VDI.destroy", xapi("VDI.snapshot", vdi))
    assert xapi.refused("VDI.snapshot", vdi)[0] == "SR_BACKEND_FAILURE_109"
    pool.settings.coalesce = True
    xapi("SR.scan", pool.shared_sr)
    xapi("VDI.snapshot", vdi)


def test_a_destroyed_disk_is_in_no_vm(pool: Pool, xapi: Client) -> None:
    vm, vdi = xapi.vm(), xapi.vdi()
    xapi.vbd(vm, vdi)
    xapi("VDI.destroy", vdi)
    assert not xapi("VM.get_VBDs", vm)
    assert not list(pool.disks.folder.iterdir())


def test_a_lun_is_a_disk_of_its_storage(pool: Pool, xapi: Client) -> None:
    pool.add_target("192.0.2.1", IQN, {"1": 8 * MIB, "2": 8 * MIB})
    sr, pbd = connect(xapi, CONFIG)
    xapi("PBD.plug", pbd)
    [vdi] = xapi("SR.get_VDIs", sr)
    assert xapi("VDI.get_virtual_size", vdi) == str(8 * MIB)
    assert xapi.refused("VDI.snapshot", vdi) == ["SR_OPERATION_NOT_SUPPORTED", sr]


def test_a_lun_keeps_its_data_when_its_storage_is_forgotten(pool: Pool, xapi: Client) -> None:
    pool.add_target("192.0.2.1", IQN, {"1": 8 * MIB})
    sr, pbd = connect(xapi, CONFIG)
    xapi("PBD.plug", pbd)
    pool.write_vdi(xapi("SR.get_VDIs", sr)[0], 0, b"data")
    assert xapi.refused("SR.forget", sr) == ["SR_HAS_PBD", sr]
    xapi("PBD.unplug", pbd)
    xapi("SR.forget", sr)
    assert not pool.leftovers()
    sr, pbd = connect(xapi, CONFIG)
    xapi("PBD.plug", pbd)
    assert pool.vdi_bytes(xapi("SR.get_VDIs", sr)[0])[:4] == b"data"


@pytest.mark.parametrize(
    ("change", "code"),
    [({"target": "192.0.2.9"}, 141), ({"targetIQN": "iqn.x"}, 141), ({"LUNid": "9"}, 107), ({"chapuser": "eve"}, 68)],
)
def test_a_wrong_way_to_a_target_is_told_apart(pool: Pool, xapi: Client, change: dict[str, str], code: int) -> None:
    pool.add_target("192.0.2.1", IQN, {"1": 8 * MIB})
    _, pbd = connect(xapi, CONFIG | change)
    assert xapi.refused("PBD.plug", pbd)[0] == f"SR_BACKEND_FAILURE_{code}"


def test_a_storage_in_use_is_not_disconnected(pool: Pool, xapi: Client) -> None:
    pool.add_target("192.0.2.1", IQN, {"1": 8 * MIB})
    sr, pbd = connect(xapi, CONFIG)
    xapi("PBD.plug", pbd)
    [vdi] = xapi("SR.get_VDIs", sr)
    vm = xapi.vm()
    xapi.vbd(vm, vdi)
    xapi("VM.start", vm, False, False)
    assert xapi.refused("PBD.unplug", pbd)[:2] == ["VDI_IN_USE", vdi]
