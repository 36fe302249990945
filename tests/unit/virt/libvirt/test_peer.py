"""Files on their way to another host: every byte, holes as holes, and a host that is not there."""

from __future__ import annotations

import pytest

from virt.errors import HypervisorError
from virt.libvirt.peer import Peers, _extents, _pieces


class Stream:
    """Takes what is sent, a few bytes at a time, as libvirt's does."""

    def __init__(self):
        self.data = bytearray()
        self.holes = 0

    def send(self, data):
        self.data += data[:1000]
        return len(data[:1000])

    def sendHole(self, length, _flags):  # noqa: N802 - libvirt's name
        self.holes += length
        self.data += bytes(length)


@pytest.mark.parametrize("parts", [[b""], [b"x" * 5000], [None, b"end"], [b"start", None], [b"a" * 70000, None, b"z"]])
def test_every_byte_arrives_in_its_place(tmp_path, parts):
    path, stream = tmp_path / "disk", Stream()
    with path.open("wb") as file:
        for part in parts:
            if part is None:
                file.truncate(file.seek(4 * 1024**2, 1))
            else:
                file.write(part)
    size = path.stat().st_size
    with path.open("rb") as file:
        for _, send in _pieces(file, size, stream):
            send(None)
    assert bytes(stream.data) == path.read_bytes()


def test_a_hole_is_not_sent_as_zeros(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(64 * 1024**2)
    with path.open("rb") as file:
        assert list(_extents(file, 64 * 1024**2)) == [(0, 64 * 1024**2, True)]


def test_an_address_takes_its_place_in_the_uri():
    peers = Peers("qemu+tls://%s/system")
    assert peers.uri_of("192.0.2.7") == "qemu+tls://192.0.2.7/system"
    assert peers.uri_of("2001:db8::7") == "qemu+tls://[2001:db8::7]/system"


def test_a_host_that_cannot_be_reached_is_an_error_about_it():
    with pytest.raises(HypervisorError, match=r"192\.0\.2\.7 cannot be reached") as caught:
        Peers("qemu+unix:///system?socket=/nonexistent/%s").reach("192.0.2.7")
    assert type(caught.value) is HypervisorError
