"""The config drive: its documents are golden, and what is put in is what a reader gets out."""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

import pycdlib
import pytest

from tests.builders import a_guest, a_network, a_vif
from virt import configdrive, iso9660
from virt.errors import DiskError

UUID = "8a1f2b3c-0000-4000-8000-00000000002a"
FIRST = a_vif(
    mac="02:16:3e:00:00:2a",
    network=a_network(
        id=7, dns=(IPv4Address("10.0.0.1"), IPv4Address("192.0.2.53")), cidr_v6="fd00:7::/64",
        gateway_v6=IPv6Address("fd00:7::1"),
    ),
    addresses=(IPv4Interface("10.0.0.3/24"),),
    addresses_v6=(IPv6Interface("fd00:7::216:3eff:fe00:2a/64"),),
)  # fmt: skip
SECOND = a_vif(
    mac="02:16:3e:00:00:2b", network=a_network(id=8, cidr="10.8.0.0/22"), addresses=(IPv4Interface("10.8.0.9/22"),)
)
THIRD = a_vif(mac="02:16:3e:00:00:2c", network=a_network(id=9), addresses=())
NO_ADDRESS = a_vif(mac="02:16:3e:00:00:2a", addresses=(), network=a_network(gateway=None, dns=()))


SERVED = tuple(
    replace(vif, network=replace(vif.network, dhcp_server=vif.network.gateway, routing="nat", advertised=True, **more))
    for vif, more in ((FIRST, {}), (SECOND, {"injected": True}))
)


def spec(**changes):
    return a_guest(**({"id": 42, "uuid": UUID, "hostname": "alpha", "vifs": (FIRST,)} | changes))


def full(**changes):
    given = {
        "display_name": 'Alpha "1" 客',
        "vifs": (FIRST, SECOND, THIRD),
        "key_name": "laptop",
        "key_data": "ssh-ed25519 AAAA somebody@example.org\n",
        "user_data": base64.encodebytes(b"#!/bin/sh\nexit 0\n").decode(),
        "metadata": {"role": "web"},
        "injected_files": (("/etc/greeting", b"well met\n"), ("C:\\data\\x.bin", bytes(range(256)) * 20), ("/e", b"")),
        "admin_password": "s3cret",
        "availability_zone": "nova",
    }
    return spec(**(given | changes))


def read_back(data, kind):
    """Every file of a drive, as Linux (rr_path) or Windows (joliet_path) finds it."""
    drive, found = pycdlib.PyCdlib(), {}
    drive.open_fp(io.BytesIO(data))
    for folder, _, names in drive.walk(**{kind: "/"}):
        for name in names:
            content, path = io.BytesIO(), f"{folder.rstrip('/')}/{name}"
            drive.get_file_from_iso_fp(content, **{kind: path})
            found[path.removeprefix("/").removesuffix(";1")] = content.getvalue()
    drive.close()
    return found


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("meta_data", configdrive.meta_data(full())),
        ("meta_data-plain", configdrive.meta_data(spec())),
        ("ec2_meta_data", configdrive.ec2_meta_data(full())),
        ("network_data", configdrive.network_data((FIRST, SECOND, THIRD))),
        ("network_data-dhcp", configdrive.network_data(SERVED)),
        ("network_data-no-address", configdrive.network_data((NO_ADDRESS,))),
        ("network_data-no-interface", configdrive.network_data(())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_is_the_one_that_was_reviewed(golden, name, document):
    golden(f"configdrive/{name}.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_what_is_put_in_is_what_a_reader_gets_out(kind):
    found = read_back(configdrive.image(full()), kind)
    assert found == configdrive.files(full())
    assert found["openstack/latest/user_data"] == b"#!/bin/sh\nexit 0\n"
    assert found["openstack/content/0001"] == bytes(range(256)) * 20
    assert json.loads(found["openstack/latest/meta_data.json"])["files"][1]["path"] == "C:\\data\\x.bin"


def test_many_files_in_one_folder_are_all_there():
    files = {f"openstack/content/{number:04d}": str(number).encode() for number in range(300)}
    assert read_back(iso9660.image(files, "config-2"), "rr_path") == files


def test_the_label_is_the_one_that_guests_look_for():
    drive = pycdlib.PyCdlib()
    drive.open_fp(io.BytesIO(configdrive.image(spec())))
    assert drive.pvd.volume_identifier.rstrip() == b"config-2"
    assert drive.joliet_vd.volume_identifier.decode("utf-16-be").rstrip() == "config-2"
    drive.close()


def test_the_same_spec_gives_the_same_bytes_at_any_time_and_place(monkeypatch):
    before = configdrive.image(full())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    after = configdrive.image(full())
    monkeypatch.undo()
    time.tzset()
    assert after == before


def test_a_secret_is_not_on_the_drive_of_a_guest_that_has_none():
    assert "admin_pass" not in configdrive.meta_data(spec())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"user_data": "not base64!"}, "its user data is not base64"),
        ({"user_data": "é"}, "its user data is not base64"),
        ({"injected_files": (("etc/motd", b""),)}, "not a plain absolute path"),
        ({"injected_files": (("/etc/../root/x", b""),)}, "not a plain absolute path"),
        ({"injected_files": (("C:\\..\\x", b""),)}, "not a plain absolute path"),
        ({"injected_files": (("/a\0b", b""),)}, "not a plain absolute path"),
        ({"injected_files": (("/big", bytes(configdrive.MAX_BYTES)),)}, "at most 67108864"),
    ],
)
def test_what_cannot_be_handed_over_is_named(changes, reason):
    with pytest.raises(DiskError, match=f"guest {spec().name}: .*{reason}"):
        configdrive.image(spec(**changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, False), ({"user_data": "eA=="}, True), ({"key_data": "k"}, True), ({"metadata": {"a": "b"}}, True),
     ({"injected_files": (("/a", b""),)}, True), ({"admin_password": "p"}, True)],
)  # fmt: skip
def test_a_drive_has_content_when_something_was_handed_in(changes, expected):
    assert configdrive.has_content(spec(**changes)) is expected
