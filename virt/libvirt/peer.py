"""Other hosts' libvirt: a way to have files there without a shell, by storage pools and streams."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from lxml import etree

from virt.driver import Progress
from virt.errors import DiskError, HypervisorError, HypervisorUnreachableError, VirtError
from virt.libvirt import host as lv
from virt.libvirt.calls import Calls
from virt.threads import Threads

_MESSAGE = 256 * 1024 - 64  # what fits into one of libvirt's messages
_SLICE = 16 * 1024**2  # sent between two looks at whether to go on
_SEND_S = 120.0
_SETTLE_S, _POLL_S = 10.0, 0.1

Connect = Callable[[str], lv.Connection]


class Peers:
    """Reaches other hosts' libvirt at `uri`, in which %s stands for their address."""

    def __init__(self, uri: str, threads: Threads | None = None, connect: Connect = lv.open_libvirt) -> None:
        self._uri, self._threads, self._connect = uri, threads, connect

    def uri_of(self, address: str) -> str:
        """The URI of one host's libvirt."""
        return self._uri.replace("%s", bracketed(address))

    def reach(self, address: str) -> Peer:
        """Another host's libvirt. Raises HypervisorError when it cannot be reached."""
        calls = Calls(workers=2, max_stuck=2, threads=self._threads)
        host = lv.Host(self.uri_of(address), calls=calls, connect=self._connect)
        try:
            host.call("(hello)", lambda connection: connection.getLibVersion())
        except HypervisorUnreachableError as exc:
            raise HypervisorError(f"{address} cannot be reached: {exc}") from exc
        return Peer(host)


class Peer:
    """One other host's libvirt, for one operation."""

    def __init__(self, host: lv.Host) -> None:
        self._host = host

    def folder(self, path: Path) -> Folder:
        """A directory there, made if need be, until it is closed."""
        folder = Folder(self._host, path)
        folder.open()
        return folder

    def close(self) -> None:
        """Let go of the connection."""
        self._host.close()


class Folder:
    """A directory on another host, seen as a transient storage pool."""

    def __init__(self, host: lv.Host, path: Path) -> None:
        self._host, self._path, self._name = host, path, f"micronova-{path.name}"

    def open(self) -> None:
        """Have the directory, and a pool over it; one that a crash left is dropped."""

        def work(connection: lv.Connection) -> None:
            stale = lv.find_pool(connection, self._name)
            if stale is not None and stale.isActive():
                stale.destroy()
            connection.storagePoolCreateXML(_pool_xml(self._name, self._path), lv.POOL_BUILD)

        self._host.call("(pool)", work)

    def sees(self, name: str) -> bool:
        """True when there is a file of this name."""

        def work(connection: lv.Connection) -> bool:
            pool = connection.storagePoolLookupByName(self._name)
            pool.refresh()
            return lv.find_volume(pool, name) is not None

        return self._host.call("(pool)", work)

    def put(self, source: Path, name: str, progress: Progress) -> None:
        """Copy a file, holes as holes; one that is there is replaced. Raises DiskError."""
        size = source.stat().st_size
        stream = self._host.call("(pool)", lambda connection: self._begin(connection, name, size))
        try:
            with source.open("rb") as file:
                for done, send in _pieces(file, size, stream):
                    progress(f"sending {name}: {done // 1024**2} of {size // 1024**2} MiB")
                    self._host.call("(pool)", send, _SEND_S)
            self._host.call("(pool)", lambda _: stream.finish(), _SEND_S)
        except BaseException as exc:
            with suppress(VirtError):  # what was wrong is being raised already
                self._host.call("(pool)", lambda _: stream.abort())
            if isinstance(exc, OSError):
                raise DiskError(f"{source}: {exc.strerror}") from exc
            raise

    def remove(self, *names: str) -> None:
        """Remove files; succeed if they are gone."""

        def work(connection: lv.Connection) -> None:
            pool = connection.storagePoolLookupByName(self._name)
            pool.refresh()
            for volume in filter(None, (lv.find_volume(pool, name) for name in names)):
                volume.delete()

        self._settled(work)

    def remove_all(self) -> None:
        """Remove the directory with every file in it, and close."""
        self.clear()
        self.close(remove=True)

    def clear(self) -> None:
        """Remove every file in it."""

        def work(connection: lv.Connection) -> None:
            pool = connection.storagePoolLookupByName(self._name)
            pool.refresh()
            for volume in pool.listAllVolumes():
                volume.delete()

        self._settled(work)

    def close(self, *, remove: bool = False) -> None:
        """Drop the pool; the directory and what is in it stay, unless `remove` and it is empty."""

        def work(connection: lv.Connection) -> None:
            pool = lv.find_pool(connection, self._name)
            if pool is None:
                return
            pool.destroy()
            if remove:
                defined = connection.storagePoolDefineXML(_pool_xml(self._name, self._path))
                defined.delete()
                defined.undefine()

        self._settled(work)

    def _begin(self, connection: lv.Connection, name: str, size: int) -> Any:
        pool = connection.storagePoolLookupByName(self._name)
        old = lv.find_volume(pool, name)
        if old is not None:
            old.delete()
        volume = pool.createXML(_volume_xml(name, size))
        stream = connection.newStream()
        volume.upload(stream, 0, size, lv.UPLOAD_SPARSE)
        return stream

    def _settled(self, work: Callable[[lv.Connection], None]) -> None:
        """Do it again until libvirt is done with what it does in the pool by itself after an upload."""
        deadline = time.monotonic() + _SETTLE_S
        while True:
            try:
                return self._host.call("(pool)", work)
            except HypervisorUnreachableError:
                raise
            except HypervisorError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)


def bracketed(address: str) -> str:
    """An address as a URI has it."""
    return f"[{address}]" if ":" in address else address


def _pieces(file: IO[bytes], size: int, stream: Any) -> Iterator[tuple[int, Callable[[lv.Connection], None]]]:
    """What to do on the stream for each part of a file: send so much of it, or tell of a hole."""
    for start, end, is_hole in _extents(file, size):
        if is_hole:
            yield start, partial(_send_hole, stream, end - start)
            continue
        for at in range(start, end, _SLICE):
            file.seek(at)
            data = file.read(min(_SLICE, end - at))
            yield at, partial(_send, stream, data)


def _send_hole(stream: Any, length: int, _connection: lv.Connection) -> None:
    stream.sendHole(length, 0)


def _send(stream: Any, data: bytes, _connection: lv.Connection) -> None:
    for at in range(0, len(data), _MESSAGE):
        rest = data[at : at + _MESSAGE]
        while rest:
            rest = rest[stream.send(rest) :]


def _extents(file: IO[bytes], size: int) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it is a hole) of a file's parts, in order."""
    at = 0
    while at < size:
        try:
            data = min(os.lseek(file.fileno(), at, os.SEEK_DATA), size)
        except OSError:  # no data after this
            data = size
        if data > at:
            yield at, data, True
        if data == size:
            return
        at = min(os.lseek(file.fileno(), data, os.SEEK_HOLE), size)
        yield data, at, False


def _pool_xml(name: str, path: Path) -> str:
    pool = etree.Element("pool", type="dir")
    etree.SubElement(pool, "name").text = name
    target = etree.SubElement(pool, "target")
    etree.SubElement(target, "path").text = str(path)
    permissions = etree.SubElement(target, "permissions")
    etree.SubElement(permissions, "mode").text = "0711"  # as a guest's directory is made
    return etree.tostring(pool, encoding="unicode")


def _volume_xml(name: str, size: int) -> str:
    volume = etree.Element("volume")
    etree.SubElement(volume, "name").text = name
    etree.SubElement(volume, "capacity", unit="bytes").text = str(size)
    etree.SubElement(volume, "allocation", unit="bytes").text = "0"
    target = etree.SubElement(volume, "target")
    etree.SubElement(target, "format", type="raw")
    permissions = etree.SubElement(target, "permissions")
    etree.SubElement(permissions, "mode").text = "0600"
    return etree.tostring(volume, encoding="unicode")
