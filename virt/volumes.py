"""Where a volume's bytes are, and whether this host can reach them. Nothing is attached here.

A connection says `protocol`, `source` and, for servers that ask who is there, `auth`:

    file    /absolute/path                          a raw file
    block   /dev/disk/by-id/...                     a block device of this host
    nbd     //HOST[:PORT]/EXPORT                    or ///EXPORT?socket=/path for a unix socket
    iscsi   PORTAL[:PORT][,GROUP] TARGET LUN        as 2011.2 wrote it, or //PORTAL[:PORT]/TARGET/LUN
    rbd     POOL/IMAGE                              or //MONITOR[:PORT][,MONITOR...]/POOL/IMAGE

A host is a name, an IPv4 address or an IPv6 address in brackets. auth: `CHAP USER SECRET` (iscsi) or `CEPHX USER KEY`
(rbd).
"""

from __future__ import annotations

import re
import socket
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from virt.errors import VolumeError
from virt.spec import InstanceSpec, VolumeAttachment

_DEVICE = re.compile(r"(?:/dev/)?(?:vd|xvd|sd|hd)([a-z]{1,2})")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,20}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_METHODS = {"iscsi": "CHAP", "rbd": "CEPHX"}
_PORTS = {"nbd": 10809, "iscsi": 3260}
_CONNECT_S = 5.0
_NBD_GREETING = b"NBDMAGIC"
_ISCSI_HEADER = 48
_ISCSI_ANSWERS = {0x23, 0x3F}  # a login response, a reject
_CEPH_PORTS = (3300, 6789)
_CEPH_GREETING = b"ceph v"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server: a host with a port (None: the protocol's own), or a unix socket."""

    host: str = ""
    port: int | None = None
    socket: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """Who a server is told that we are."""

    user: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSource:
    """A parsed connection. name: a path (file, block), an export (nbd), `target/lun` (iscsi) or `pool/image` (rbd)."""

    protocol: str
    name: str
    endpoints: tuple[Endpoint, ...] = ()
    auth: Auth | None = None

    @property
    def is_network(self) -> bool:
        """True when the hypervisor talks to a server by itself."""
        return self.protocol in {"nbd", "iscsi", "rbd"}


def source_of(volume: VolumeAttachment) -> VolumeSource:
    """Where a volume is. Raises VolumeError, which never carries the secret."""
    protocol, text = volume.connection.get("protocol", ""), volume.connection.get("source", "")
    try:
        return source(protocol, text, volume.connection.get("auth"))
    except ValueError as exc:
        raise _wrong(volume, str(exc)) from exc


def source(protocol: str, text: str, auth: str | None = None) -> VolumeSource:
    """A connection taken apart. Raises ValueError, which never carries the secret."""
    parse = _PARSERS.get(protocol)
    if parse is None:
        raise ValueError(f"{protocol!r:.20} is none of {', '.join(_PARSERS)}")
    if not text or _UNPRINTABLE.search(text):
        raise ValueError("its location is empty or has unprintable characters")
    try:
        name, endpoints = parse(text)
    except ValueError as exc:
        raise ValueError(f"{protocol} location {text!r:.200}: {exc}") from exc
    return VolumeSource(protocol=protocol, name=name, endpoints=endpoints, auth=_auth(protocol, auth))


def login(protocol: str, user: str, secret: str) -> str:
    """The `auth` of a connection; ValueError, without the secret, when no server of this protocol would take it."""
    method = _METHODS.get(protocol)
    text = f"{method} {user} {secret}"
    found = _auth(protocol, text)
    if found is None or (found.user, found.secret) != (user, secret):
        raise ValueError("a user's name has no blank")
    return text


def target_of(volume: VolumeAttachment) -> str:
    """The name that the hypervisor gives the disk: `vdb` for /dev/vdb, /dev/sdb or xvdb. Raises VolumeError."""
    matched = _DEVICE.fullmatch(volume.device)
    if matched is None:
        raise _wrong(volume, f"{volume.device!r:.40} is not a device such as /dev/vdb")
    return f"vd{matched[1]}"


def serial_of(volume: VolumeAttachment) -> str:
    """What the guest can match it by. Raises VolumeError when a virtio disk could not carry it whole."""
    if not _SERIAL.fullmatch(volume.serial):
        raise _wrong(volume, f"{volume.serial!r:.40} is not a serial of 1 to 20 plain characters")
    return volume.serial


def refuse_volume_root(spec: InstanceSpec) -> None:
    """Raise VolumeError when a guest has no root disk of its own that could be copied."""
    for volume in spec.root_volumes:
        raise _wrong(volume, f"guest {spec.name} boots from it: there is no disk of its own to copy")


def check(volume: VolumeAttachment, source: VolumeSource) -> None:
    """See that the file, device or server is there, so that a hypervisor is not left hanging on it.

    Every server has to say a word, because QEMU waits for one without end. An NBD server must take several clients,
    for this looks at it first (qemu-nbd: --persistent). Of an rbd cluster one monitor will do; monitors that only the
    host's ceph.conf names are left to ceph's own library. Raises VolumeError with the reason.
    """
    try:
        _CHECKS[source.protocol](source)
    except (OSError, ValueError) as exc:
        reason = (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)
        where = source.name if source.protocol not in _PORTS else _place(source.endpoints[0])
        raise _wrong(volume, f"{source.protocol} {where}: {reason}") from exc


def _place(endpoint: Endpoint) -> str:
    return endpoint.socket or f"{endpoint.host} port {endpoint.port}"


def _wrong(volume: VolumeAttachment, reason: str) -> VolumeError:
    return VolumeError(f"volume {volume.volume_id}: {reason}")


def _auth(protocol: str, text: str | None) -> Auth | None:
    if not text:
        return None
    method = _METHODS.get(protocol)
    words = text.split(" ", 2)
    if method is None:
        raise ValueError(f"a {protocol} volume takes no login")
    if len(words) != 3 or words[0] != method or not all(words):
        raise ValueError(f"its login is not {method} USER SECRET")
    if _UNPRINTABLE.search(words[1]):
        raise ValueError("its login has unprintable characters")
    return Auth(user=words[1], secret=words[2])


Parsed = tuple[str, tuple[Endpoint, ...]]


def _path(text: str) -> Parsed:
    if not text.startswith("/") or ".." in PurePosixPath(text).parts:
        raise ValueError("is not an absolute path without '..'")
    return text, ()


def _nbd(text: str) -> Parsed:
    url = _split(text)
    export = unquote(url.path.removeprefix("/"))
    if url.netloc:
        return export, (_endpoint(url.netloc, _PORTS["nbd"]),)
    sockets = parse_qs(url.query).get("socket", [])
    if len(sockets) != 1:
        raise ValueError("names neither a host nor a socket")
    return export, (Endpoint(socket=_path(sockets[0])[0]),)


def _iscsi(text: str) -> Parsed:
    words = text.split()
    if len(words) == 1:
        url = _split(text)
        portal, (target, _, lun) = url.netloc, url.path.removeprefix("/").partition("/")
    elif len(words) == 3:
        portal, (target, lun) = words[0].partition(",")[0], words[1:]
    else:
        raise ValueError("is not PORTAL TARGET LUN")
    if not target or "/" in target or not (lun.isascii() and lun.isdigit()):
        raise ValueError("has no target or no LUN")
    return f"{target}/{lun}", (_endpoint(portal, _PORTS["iscsi"]),)


def _rbd(text: str) -> Parsed:
    # Several monitors are no URL: urlsplit takes the second one's IPv6 brackets for a mistake.
    hosts, _, name = text.removeprefix("//").partition("/") if text.startswith("//") else ("", "", text)
    pool, _, image = name.partition("/")
    if not pool or not image or "/" in image:
        raise ValueError("is not POOL/IMAGE")
    monitors = hosts.split(",") if hosts else []
    return f"{pool}/{image}", tuple(_endpoint(monitor, None) for monitor in monitors)


_PARSERS: dict[str, Callable[[str], Parsed]] = {
    "file": _path, "block": _path, "nbd": _nbd, "iscsi": _iscsi, "rbd": _rbd,
}  # fmt: skip


def _split(text: str) -> SplitResult:
    return urlsplit(text if text.startswith("//") else f"//{text}")


def _endpoint(text: str, port: int | None) -> Endpoint:
    """HOST, HOST:PORT, [IPV6] or [IPV6]:PORT."""
    url = urlsplit(f"//{text}")
    if not url.hostname or url.username is not None or url.netloc != text:
        raise ValueError(f"{text!r:.80} is not a host, with a port perhaps and an IPv6 address in brackets")
    return Endpoint(host=url.hostname, port=url.port or port)


def _check_file(source: VolumeSource) -> None:
    if not stat.S_ISREG(Path(source.name).stat().st_mode):
        raise ValueError("is not a plain file")


def _check_block(source: VolumeSource) -> None:
    if not stat.S_ISBLK(Path(source.name).stat().st_mode):
        raise ValueError("is not a block device")


def _check_nbd(source: VolumeSource) -> None:
    """A server that says nothing would hold up QEMU, and with it the guest, for ever."""
    with _connected(source.endpoints[0]) as server:
        if server.recv(len(_NBD_GREETING), socket.MSG_WAITALL) != _NBD_GREETING:
            raise ValueError("is no NBD server")


def _check_iscsi(source: VolumeSource) -> None:
    """Begin to log in, and go away once the portal answers, whatever it does."""
    with _connected(source.endpoints[0]) as portal:
        portal.sendall(_iscsi_hello())
        answer = portal.recv(_ISCSI_HEADER, socket.MSG_WAITALL)
        if len(answer) != _ISCSI_HEADER or answer[0] & 0x3F not in _ISCSI_ANSWERS:
            raise ValueError("is no iSCSI portal")


def _iscsi_hello() -> bytes:
    """A login request for a discovery session (RFC 7143): a header of 48 bytes, then who asks, padded to 4 bytes."""
    text = b"InitiatorName=iqn.2010-10.org.openstack:probe\0SessionType=Discovery\0AuthMethod=None\0"
    head = struct.pack(">BBBBB3s6sHIHHII16x", 0x43, 0x81, 0, 0, 0, len(text).to_bytes(3, "big"), b"\x80" + bytes(5),
                       0, 1, 0, 0, 1, 0)  # fmt: skip
    return head + text.ljust(-(-len(text) // 4) * 4, b"\0")


def _check_rbd(source: VolumeSource) -> None:
    """One monitor that greets is enough."""
    refusals = []
    for endpoint in source.endpoints:
        for port in (endpoint.port,) if endpoint.port else _CEPH_PORTS:
            try:
                with _connected(Endpoint(host=endpoint.host, port=port)) as monitor:
                    if monitor.recv(len(_CEPH_GREETING), socket.MSG_WAITALL) == _CEPH_GREETING:
                        return
                refusals.append(f"{endpoint.host} port {port}: is no ceph monitor")
            except OSError as exc:
                refusals.append(f"{endpoint.host} port {port}: {exc.strerror or exc}")
    if refusals:
        raise ValueError("; ".join(refusals))


def _connected(endpoint: Endpoint) -> socket.socket:
    if endpoint.socket is None:
        return socket.create_connection((endpoint.host, endpoint.port or 0), timeout=_CONNECT_S)
    server = socket.socket(socket.AF_UNIX)
    try:
        server.settimeout(_CONNECT_S)
        server.connect(endpoint.socket)
    except BaseException:
        server.close()
        raise
    return server


_CHECKS: dict[str, Callable[[VolumeSource], None]] = {
    "file": _check_file, "block": _check_block, "nbd": _check_nbd, "iscsi": _check_iscsi, "rbd": _check_rbd,
}  # fmt: skip
