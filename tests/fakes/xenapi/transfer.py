"""Disks in and out over HTTP: 200 comes before the bytes, and only the task says how it ended."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import responses
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, urlencode

from tests.fakes.xenapi import vhd
from tests.fakes.xenapi.disks import CHUNK
from tests.fakes.xenapi.errors import ApiError, ConnectionDroppedError
from tests.fakes.xenapi.lifecycle import refresh
from tests.fakes.xenapi.registry import Context
from tests.fakes.xenapi.services import finish_task, new_task
from tests.fakes.xenapi.storage import is_plugged, measure

if TYPE_CHECKING:
    from tests.fakes.xenapi.faults import Fault
    from tests.fakes.xenapi.pool import Host, Pool

IO_ERROR = ("VDI_IO_ERROR", "Device I/O errors")


class RefusedError(Exception):
    """The request is answered with an HTTP status."""

    def __init__(self, status: int, location: str = "") -> None:
        super().__init__(status)
        self.status, self.location = status, location


@dataclass(slots=True)
class Request:
    """One HTTP request beside the XML-RPC ones. write sends bytes; body is the rest of the connection."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: BinaryIO
    write: Callable[[bytes], object]

    @property
    def length(self) -> int | None:
        """Content-Length."""
        value = self.headers.get("content-length", "")
        return int(value) if value.isdecimal() else None


def parse(
    method: str, target: str, headers: dict[str, str], body: BinaryIO, write: Callable[[bytes], object]
) -> Request:
    """A request with the parameters of its query and its cookies."""
    path, _, query = target.partition("?")
    cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";") if "=" in part)
    return Request(method, path, cookies | dict(parse_qsl(query, keep_blank_values=True)), headers, body, write)


class Transfers:
    """The handlers of a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._db = pool.db
        self._handlers = {
            ("PUT", "/import_raw_vdi"): self._import,
            ("GET", "/export_raw_vdi"): self._export,
            ("CONNECT", "/console"): self._console,
        }

    def serve(self, host: Host, request: Request) -> None:
        """Answer; the connection is not used again."""
        session = request.query.get("session_id", "")
        call = self._pool.note(f"{request.method} {request.path}", (dict(request.query),), host, session)
        faults = self._pool.faults.take(request.path.strip("/"))
        try:
            self._route(host, request, faults)
        except RefusedError as exc:
            call.error = [str(exc.status)]
            location = f"Location: {exc.location}\r\n" if exc.location else ""
            request.write(_head(exc.status, location))

    def _route(self, host: Host, request: Request, faults: dict[str, Fault]) -> None:
        handler = self._handlers.get((request.method, request.path))
        if handler is None:
            raise RefusedError(404)
        x = Context(self._pool, host, session=self._session(host, request))
        if fault := faults.get("refuse_transfer"):
            raise RefusedError(fault.facts["status"])
        handler(x, request, faults)

    def _session(self, host: Host, request: Request) -> str:
        """The session named, or a user's name and password."""
        session = request.query.get("session_id", "")
        with self._db.changed:
            if self._db.has("session", session):
                return session
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            user, _, password = base64.b64decode(credentials).decode().partition(":")
            if user in self._pool.users and self._pool.users[user].password == password:
                return ""
        raise RefusedError(401)

    def _disk(self, x: Context, request: Request, faults: dict[str, Fault]) -> str:
        """The VDI asked for, by reference or uuid; refused when this host does not see its storage."""
        wanted = request.query.get("vdi", "")
        with self._db.changed:
            found = [wanted] if self._db.has("VDI", wanted) else self._db.find("VDI", uuid=wanted)
            if not found:
                raise RefusedError(404)
            sr = self._db.get("VDI", found[0])["SR"]
            if "redirect" in faults or not is_plugged(x, sr, x.host.ref):
                target = next(
                    (one for one in self._pool.hosts if one is not x.host and is_plugged(x, sr, one.ref)), None
                )
                target = target or (self._pool.other(x.host) if "redirect" in faults else None)
                if target is None:
                    raise RefusedError(500)
                raise RefusedError(302, f"{target.url}{request.path}?{urlencode(request.query)}")
            return found[0]

    @contextlib.contextmanager
    def _task(self, x: Context, request: Request, label: str) -> Iterator[str]:
        """The task that tells how it ends: the one named, or a new one."""
        with self._db.changed:
            ref = request.query.get("task_id", "") or new_task(x, label)
            if not self._db.has("task", ref):
                raise RefusedError(500)
            self._pool.working.add(ref)
        try:
            yield ref
        except ApiError as exc:
            self._end(x, ref, "failure", exc.description)
        except (OSError, ConnectionDroppedError):
            self._end(x, ref, "failure", list(IO_ERROR))
            raise
        except RefusedError:
            self._end(x, ref, "failure", ["INTERNAL_ERROR", "the request was refused"])
            raise
        else:
            self._end(x, ref, "success", None)

    def _end(self, x: Context, task: str, status: str, error: list[str] | None) -> None:
        with self._db.changed:
            self._pool.working.discard(task)
            if self._db.has("task", task) and self._db.get("task", task)["status"] == "cancelling":
                status, error = "cancelled", ["TASK_CANCELLED", task]
            finish_task(x, task, status, error=error)
            refresh(self._db)

    @contextlib.contextmanager
    def _attached(self, x: Context, vdi: str, *, writing: bool) -> Iterator[str]:
        """The disk's uuid, while the host has it open: no guest may (if we write) and nobody can destroy it."""
        with self._db.changed:
            record = self._db.get("VDI", vdi)
            vbds = [self._db.get("VBD", vbd) for vbd in record["VBDs"]]
            if record["current_operations"] or any(
                vbd["currently_attached"] and (writing or vbd["mode"] == "RW") for vbd in vbds
            ):
                raise ApiError("VDI_IN_USE", vdi, "attach")
            self._db.update("VDI", vdi, current_operations={"OpaqueRef:transfer": "update"})
            refresh(self._db)
        try:
            yield record["uuid"]
        finally:
            with self._db.changed:
                self._db.update("VDI", vdi, current_operations={})
                measure(x, record["SR"])
                refresh(self._db)

    def _import(self, x: Context, request: Request, faults: dict[str, Fault]) -> None:
        vdi, form = self._disk(x, request, faults), request.query.get("format", "raw")
        with self._task(x, request, "VDI.import") as task:
            if form not in {"raw", "vhd"}:
                raise RefusedError(404)
            if "transfer-encoding" in request.headers or request.length is None:
                raise RefusedError(403)
            try:
                with self._attached(x, vdi, writing=True) as disk:
                    request.write(_head(200, f"Task-id: {task}\r\n"))
                    self._receive(x, request, disk, form, faults)
            except ApiError as exc:
                if exc.code == "VDI_IN_USE":
                    request.write(_head(500))
                raise

    def _receive(self, x: Context, request: Request, disk: str, form: str, faults: dict[str, Fault]) -> None:
        """Take the body; ApiError when it is short or no disk can be made of it."""
        self._linger(faults)
        most = faults["cut_transfer"].facts["at_bytes"] if "cut_transfer" in faults else None
        with tempfile.TemporaryFile(dir=x.disks.folder) as spool:
            at, length = 0, request.length or 0
            while at < length:
                data = request.body.read1(min(CHUNK, length - at))  # type: ignore[attr-defined]
                if not data:
                    raise ApiError(*IO_ERROR)
                if form == "raw":
                    self._put(x, disk, at, data)
                else:
                    spool.write(data)
                at += len(data)
                if most is not None and at >= most:
                    raise ConnectionDroppedError(request.path)
            if fault := faults.get("fail_transfer"):
                raise ApiError(*fault.facts["description"])
            if form == "vhd":
                _unpack(x, spool, disk)

    def _put(self, x: Context, disk: str, at: int, data: bytes) -> None:
        try:
            x.disks.write(disk, at, data)
        except OSError as exc:
            raise ApiError(*IO_ERROR) from exc

    def _export(self, x: Context, request: Request, faults: dict[str, Fault]) -> None:
        vdi, form = self._disk(x, request, faults), request.query.get("format", "raw")
        with self._task(x, request, "VDI.export_raw_vdi") as task:
            if form not in {"raw", "vhd"}:
                raise RefusedError(404)
            try:
                with self._attached(x, vdi, writing=False) as disk:
                    name = f'Content-Disposition: attachment; filename="{disk}.{form}"\r\n'
                    request.write(_head(200, f"Task-id: {task}\r\n{name}"))
                    self._send(x, request, disk, form, faults)
            except ApiError as exc:
                if exc.code == "VDI_IN_USE":
                    request.write(_head(500))
                raise

    def _send(self, x: Context, request: Request, disk: str, form: str, faults: dict[str, Fault]) -> None:
        self._linger(faults)
        left = faults["cut_transfer"].facts["at_bytes"] if "cut_transfer" in faults else None
        for data in vhd.write(x.disks, disk) if form == "vhd" else _raw(x, disk):
            if left is not None and len(data) >= left:
                request.write(data[:left])
                raise ConnectionDroppedError(request.path)
            request.write(data)
            left = None if left is None else left - len(data)
        if fault := faults.get("fail_transfer"):
            raise ApiError(*fault.facts["description"])

    def _linger(self, faults: dict[str, Fault]) -> None:
        if fault := faults.get("hold"):
            fault.facts["hold"].stand()
        if fault := faults.get("hang_transfer"):
            with self._db.changed:
                self._db.changed.wait_for(lambda: self._pool.stopping, timeout=fault.facts["seconds"])

    def _console(self, _x: Context, request: Request, _faults: dict[str, Fault]) -> None:
        """The screen (RFB) or the serial line of a running guest, as a stream."""
        with self._db.changed:
            wanted = request.query.get("uuid", "")
            found = self._db.find("console", uuid=wanted) or [request.query.get("ref", "")]
            if not self._db.has("console", found[0]):
                raise RefusedError(404)
            record = self._db.get("console", found[0])
            output = self._pool.guest(record["VM"]).output
        request.write(_head(200))
        request.write(b"RFB 003.008\n" if record["protocol"] == "rfb" else output.encode())
        with contextlib.suppress(ConnectionError, TimeoutError):
            while data := request.body.read1(CHUNK):  # type: ignore[attr-defined]
                request.write(data)


def _raw(x: Context, disk: str) -> Iterator[bytes]:
    with x.disks.path(disk).open("rb") as file:
        for _ in range(-(-os.fstat(file.fileno()).st_size // CHUNK)):
            yield file.read(CHUNK)


def _unpack(x: Context, spool: BinaryIO, disk: str) -> None:
    try:
        vhd.read(spool, x.disks, disk)
    except (vhd.VhdError, OSError) as exc:
        raise ApiError(*IO_ERROR) from exc


def _head(status: int, more: str = "") -> bytes:
    reason = responses.get(status, "Unknown")
    return f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nCache-Control: no-cache\r\n{more}\r\n".encode()
