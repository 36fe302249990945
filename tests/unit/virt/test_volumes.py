"""Where volumes are: what a connection says, however its names look, and what is refused."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.builders import a_volume
from virt.errors import VolumeError
from virt.volumes import Auth, Endpoint, check, login, serial_of, source_of, target_of

IQN = "iqn.2010-10.org.openstack:volume-00000001"


def volume(protocol, source, **more):
    return a_volume(connection={"protocol": protocol, "source": source, **more})


@pytest.mark.parametrize(
    ("protocol", "text", "name", "endpoints"),
    [
        ("file", "/volumes/a:b,c d", "/volumes/a:b,c d", []),
        ("block", "/dev/disk/by-id/x", "/dev/disk/by-id/x", []),
        ("nbd", "//host/export", "export", [("host", 10809)]),
        ("nbd", "//10.0.0.1:10810/a%20b", "a b", [("10.0.0.1", 10810)]),
        ("nbd", "//[fd00::1]:10810/e:x", "e:x", [("fd00::1", 10810)]),
        ("nbd", "[fd00::1]/e", "e", [("fd00::1", 10809)]),
        ("iscsi", f"10.0.0.5:3261,1 {IQN} 1", f"{IQN}/1", [("10.0.0.5", 3261)]),
        ("iscsi", f"[fd00::5]:3260,1 {IQN}:a:b 0", f"{IQN}:a:b/0", [("fd00::5", 3260)]),
        ("iscsi", f"//[fd00::5]/{IQN}/2", f"{IQN}/2", [("fd00::5", 3260)]),
        ("rbd", "pool/image", "pool/image", []),
        ("rbd", "//mon1,[fd00::6]:6790/pool/im:age", "pool/im:age", [("mon1", None), ("fd00::6", 6790)]),
    ],
)
def test_names_keep_their_colons_and_addresses_their_brackets_inside(protocol, text, name, endpoints):
    source = source_of(volume(protocol, text))
    assert source.name == name
    assert [(one.host, one.port) for one in source.endpoints] == endpoints


def test_an_nbd_server_may_be_a_socket():
    source = source_of(volume("nbd", "///export?socket=/run/nbd.sock"))
    assert (source.name, source.endpoints) == ("export", (Endpoint(socket="/run/nbd.sock"),))


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        ("", "/x"), ("sheepdog", "x"), ("file", ""), ("file", "relative"), ("file", "/a/../b"), ("file", "/a\nb"),
        ("nbd", "//fd00::1/e"), ("nbd", "host:port/e"), ("nbd", "//user@host/e"), ("nbd", "///e"),
        ("nbd", "//host:99999/e"), ("nbd", "///e?socket=relative"),
        ("iscsi", "10.0.0.5"), ("iscsi", f"10.0.0.5 {IQN}"), ("iscsi", f"fd00::5 {IQN} 1"),
        ("iscsi", f"10.0.0.5 {IQN} one"), ("iscsi", f"//host/{IQN}/1/2"),
        ("rbd", "pool"), ("rbd", "a/b/c"), ("rbd", "//mon,/a/b"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_named(protocol, text):
    wrong = volume(protocol, text)
    with pytest.raises(VolumeError, match=f"^volume {wrong.volume_id}: "):
        source_of(wrong)


def test_a_login_is_method_user_and_a_secret_with_whatever_in_it():
    source = source_of(volume("iscsi", f"h {IQN} 1", auth="CHAP user a b:c "))
    assert source.auth == Auth(user="user", secret="a b:c ")
    assert "a b:c" not in repr(source)


@pytest.mark.parametrize(
    ("protocol", "auth"),
    [("iscsi", "user hush"), ("iscsi", "CEPHX user hush"), ("rbd", "CHAP user hush"), ("file", "CHAP user hush")],
)
def test_a_login_that_will_not_do_is_refused_and_not_repeated(protocol, auth):
    sources = {"iscsi": f"h {IQN} 1", "rbd": "a/b", "file": "/x"}
    with pytest.raises(VolumeError) as caught:
        source_of(volume(protocol, sources[protocol], auth=auth))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("device", ["/dev/vdb", "vdb", "/dev/sdb", "xvdb", "/dev/hdb"])
def test_a_device_may_be_called_as_on_any_bus(device):
    assert target_of(a_volume(device=device)) == "vdb"


@pytest.mark.parametrize("device", ["", "/dev/", "/dev/vdb1", "/dev/../vdb", "vdb\n", "/dev/nvme0n1", "/dev/vdabc"])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(VolumeError):
        target_of(a_volume(device=device))


@pytest.mark.parametrize("serial", ["", "x" * 21, "a b", "a,b", "é"])
def test_a_serial_that_a_disk_cannot_carry_is_refused(serial):
    with pytest.raises(VolumeError):
        serial_of(a_volume(serial=serial))


def checked(protocol, source):
    one = volume(protocol, source)
    check(one, source_of(one))


def test_what_is_there_passes(tmp_path):
    (tmp_path / "volume").touch()
    checked("file", str(tmp_path / "volume"))
    checked("rbd", "pool/image")


@pytest.mark.parametrize(
    ("protocol", "source", "reason"),
    [
        ("file", "/nowhere", "No such file"),
        ("file", "/", "not a plain file"),
        ("file", "/dev/null", "not a plain file"),
        ("block", "/dev/null", "not a block device"),
        ("nbd", "///e?socket=/nowhere", "No such file"),
        ("nbd", "//127.0.0.1:1/e", "port 1: .*refused"),
        ("iscsi", f"127.0.0.1:1 {IQN} 1", "port 1: .*refused"),
        ("rbd", "//127.0.0.1:1,127.0.0.1:2/pool/image", "port 1: .*refused; .*port 2: .*refused"),
    ],
)
def test_what_is_not_there_is_named(protocol, source, reason):
    with pytest.raises(VolumeError, match=reason):
        checked(protocol, source)


@pytest.fixture
def server_that():
    """A maker of servers that say something to one client and go."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say(words, *, when_spoken_to=False):
            def greet():
                with server.accept()[0] as client:
                    if when_spoken_to:
                        client.recv(4096)
                    client.sendall(words)

            threading.Thread(target=greet, daemon=True).start()
            return f"//127.0.0.1:{server.getsockname()[1]}/e"

        yield say


def test_an_nbd_server_is_known_by_its_greeting(server_that):
    checked("nbd", server_that(b"NBDMAGIC"))


@pytest.mark.parametrize("words", [b"SSH-2.0-", b"NBD", b""])
def test_what_greets_otherwise_is_no_nbd_server(server_that, words):
    with pytest.raises(VolumeError, match="is no NBD server"):
        checked("nbd", server_that(words))


def checked_portal(server_that, words):
    checked("iscsi", server_that(words, when_spoken_to=True).replace("/e", f"/{IQN}/1"))


@pytest.mark.parametrize("opcode", [0x23, 0x3F])
def test_an_iscsi_portal_is_known_by_its_answer_to_a_login(server_that, opcode):
    checked_portal(server_that, bytes([opcode]).ljust(48, b"\0"))


@pytest.mark.parametrize("words", [b"SSH-2.0-".ljust(48), bytes([0x23]), b""])
def test_what_answers_otherwise_is_no_iscsi_portal(server_that, words):
    with pytest.raises(VolumeError, match="is no iSCSI portal"):
        checked_portal(server_that, words)


def test_one_monitor_of_a_cluster_that_greets_will_do(server_that):
    monitor = server_that(b"ceph v2\n").removeprefix("//").removesuffix("/e")
    checked("rbd", f"//127.0.0.1:1,{monitor}/pool/image")


def test_what_greets_otherwise_is_no_monitor(server_that):
    with pytest.raises(VolumeError, match="is no ceph monitor"):
        checked("rbd", server_that(b"SSH-2.0-").replace("/e", "/pool/image"))


@pytest.mark.parametrize(("protocol", "method"), [("iscsi", "CHAP"), ("rbd", "CEPHX")])
def test_a_login_is_put_together_as_it_is_taken_apart(protocol, method):
    assert login(protocol, "user", "a b ") == f"{method} user a b "


@pytest.mark.parametrize(
    ("protocol", "user", "secret"),
    [
        ("nbd", "user", "hush"),
        ("iscsi", "a b", "hush"),
        ("iscsi", "", "hush"),
        ("iscsi", "u", ""),
        ("rbd", "\0", "hush"),
    ],
)
def test_a_login_that_no_server_takes_is_refused_and_not_repeated(protocol, user, secret):
    with pytest.raises(ValueError, match=r"login|blank") as caught:
        login(protocol, user, secret)
    assert "hush" not in str(caught.value)
