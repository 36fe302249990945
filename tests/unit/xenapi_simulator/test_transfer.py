"""Disks go in and out by HTTP, and only the task says how that ended."""

from __future__ import annotations

import http.client
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.xenapi import Pool
from tests.unit.xenapi_simulator.conftest import MIB, Client

DATA = bytes(range(256)) * 4096
IO_ERROR = ["VDI_IO_ERROR", "Device I/O errors"]


def vhd_of(folder: Path, data: bytes, *options: str) -> bytes:
    """A VHD that qemu-img made."""
    raw, made = folder / "in.raw", folder / "out.vhd"
    raw.write_bytes(data)
    convert = ["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", ",".join(("force_size=on", *options)), raw, made]
    subprocess.run(convert, check=True)
    return made.read_bytes()


def test_an_upload_is_on_the_disk(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi()
    assert xapi.upload(vdi, DATA) == []
    assert pool.vdi_bytes(vdi) == DATA.ljust(4 * MIB, b"\0")
    assert int(xapi("VDI.get_physical_utilisation", vdi)) >= len(DATA)


def test_an_upload_overwrites_with_zeroes_too(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi()
    xapi.upload(vdi, DATA)
    xapi.upload(vdi, bytes(len(DATA)))
    assert not pool.vdi_bytes(vdi).strip(b"\0")


@pytest.mark.parametrize("kind", ["subformat=dynamic", "subformat=fixed"])
def test_a_vhd_of_qemu_is_understood(pool: Pool, xapi: Client, tmp_path: Path, kind: str) -> None:
    vdi = xapi.vdi()
    assert xapi.upload(vdi, vhd_of(tmp_path, DATA.ljust(4 * MIB, b"\0"), kind), format="vhd") == []
    assert pool.vdi_bytes(vdi)[: len(DATA)] == DATA


def test_qemu_understands_a_downloaded_vhd(pool: Pool, xapi: Client, tmp_path: Path) -> None:
    vdi = xapi.vdi()
    pool.write_vdi(vdi, 3 * MIB, DATA)
    data, error = xapi.download(vdi, format="vhd")
    assert not error
    (tmp_path / "down.vhd").write_bytes(data)
    command = ["qemu-img", "convert", "-f", "vpc", "-O", "raw", tmp_path / "down.vhd", tmp_path / "down.raw"]
    subprocess.run(command, check=True)
    assert (tmp_path / "down.raw").read_bytes() == pool.vdi_bytes(vdi)


def test_a_raw_download_is_the_whole_disk(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi()
    pool.write_vdi(vdi, 0, DATA)
    assert xapi.download(vdi, format="raw") == (pool.vdi_bytes(vdi), [])


@pytest.mark.parametrize(("body", "form"), [(bytes(5 * MIB), "raw"), (b"no vhd" * 1000, "vhd")])
def test_what_is_no_image_for_the_disk_fails_after_200(xapi: Client, body: bytes, form: str) -> None:
    assert xapi.upload(xapi.vdi(), body, format=form) == IO_ERROR


def test_a_vhd_that_ends_too_early_fails(xapi: Client, tmp_path: Path) -> None:
    image = vhd_of(tmp_path, DATA)
    assert xapi.upload(xapi.vdi(), image[: len(image) // 2] + image[-512:], format="vhd") == IO_ERROR


def test_a_vhd_with_a_wrong_checksum_fails(xapi: Client, tmp_path: Path) -> None:
    image = bytearray(vhd_of(tmp_path, DATA))
    image[-1] ^= 1
    assert xapi.upload(xapi.vdi(), bytes(image), format="vhd") == IO_ERROR


def test_an_upload_that_the_client_breaks_off_fails(xapi: Client) -> None:
    task, vdi = xapi("task.create", "upload", ""), xapi.vdi()
    with closing(http.client.HTTPSConnection("127.0.0.1", urlsplit(xapi.pool.url).port, context=xapi.tls)) as link:
        link.putrequest("PUT", f"/import_raw_vdi?session_id={xapi.session.handle}&task_id={task}&vdi={vdi}")
        link.putheader("Content-Length", str(len(DATA)))
        link.endheaders()
        link.send(DATA[:-1])
    assert xapi.wait(task)["error_info"] == IO_ERROR


def test_a_vhd_for_a_larger_disk_fails(xapi: Client, tmp_path: Path) -> None:
    assert xapi.upload(xapi.vdi(), vhd_of(tmp_path, DATA * 8), format="vhd") == IO_ERROR


def test_a_task_may_fail_after_200(pool: Pool, xapi: Client) -> None:
    pool.faults.fail_transfer("import_raw_vdi", "SR_BACKEND_FAILURE_44", "", "full", "")
    assert xapi.upload(xapi.vdi(), DATA) == ["SR_BACKEND_FAILURE_44", "", "full", ""]
    assert not pool.faults.pending


def test_an_upload_may_be_cut_off(pool: Pool, xapi: Client) -> None:
    pool.faults.cut_transfer("import_raw_vdi", len(DATA) // 2)
    assert xapi.upload(xapi.vdi(), DATA) == IO_ERROR


def test_a_download_may_be_cut_off(pool: Pool, xapi: Client) -> None:
    pool.faults.cut_transfer("export_raw_vdi", 1000)
    data, error = xapi.download(xapi.vdi(), format="raw")
    assert (len(data), error) == (1000, IO_ERROR)


def test_a_host_without_the_storage_sends_elsewhere(pool: Pool, xapi: Client) -> None:
    vdi = xapi.vdi(pool.local_sr("beta"))
    with xapi.http("GET", "/export_raw_vdi", vdi=vdi) as answer:
        assert answer.status == 302
        assert answer.headers["Location"].startswith(f"{pool.slave.url}/export_raw_vdi?session_id=OpaqueRef")
    with xapi.http("GET", "/export_raw_vdi", url=pool.slave.url, vdi=vdi) as answer:
        assert len(answer.read()) == 4 * MIB


def test_a_transfer_may_be_sent_to_the_other_host(pool: Pool, xapi: Client) -> None:
    pool.faults.redirect("import_raw_vdi")
    task = xapi("task.create", "upload", "")
    with xapi.http("PUT", "/import_raw_vdi", vdi=xapi.vdi(), task_id=task) as answer:
        assert answer.status == 302
    assert pool.record("task", task)["status"] == "pending"


@pytest.mark.parametrize(("query", "status"), [({"session_id": "x"}, 401), ({"vdi": "x"}, 404), ({"format": "x"}, 404)])
def test_a_request_that_makes_no_sense_is_refused(xapi: Client, query: dict[str, str], status: int) -> None:
    query = {"vdi": xapi.vdi()} | query
    with xapi.http("GET", "/export_raw_vdi", **query) as answer:
        assert answer.status == status


def test_chunks_are_not_taken(xapi: Client) -> None:
    task = xapi("task.create", "upload", "")
    with xapi.http("PUT", "/import_raw_vdi", vdi=xapi.vdi(), task_id=task) as answer:
        assert answer.status == 403
    assert xapi.wait(task)["status"] == "failure"


def test_a_disk_in_use_is_not_overwritten(xapi: Client) -> None:
    vm, vdi = xapi.vm(), xapi.vdi()
    xapi.vbd(vm, vdi)
    xapi("VM.start", vm, False, False)
    task = xapi("task.create", "upload", "")
    with xapi.http("PUT", "/import_raw_vdi", b"", vdi=vdi, task_id=task) as answer:
        assert answer.status == 500
    assert xapi.wait(task)["error_info"] == ["VDI_IN_USE", vdi, "attach"]


def test_a_console_is_a_stream(pool: Pool, xapi: Client) -> None:
    vm = xapi.running()
    with xapi.http(
        "CONNECT", "/console", uuid=pool.record("console", xapi("VM.get_consoles", vm)[0])["uuid"]
    ) as answer:
        assert answer.status == 200
        assert answer.fp.read(12) == b"RFB 003.008\n"
