"""Carry the bytes of disks to a pool and from it, by HTTP.

xapi answers 200 before it reads a byte, so only the task of a transfer tells whether it succeeded. It may send us to
another host of the pool (302), and wants to be told the length beforehand.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlencode, urlsplit

from virt.driver import Progress
from virt.errors import DiskError, HypervisorError, disk_error
from virt.xenapi.errors import XapiError
from virt.xenapi.helper import HelperBase
from virt.xenapi.session import Session
from virt.xenapi.streams import STALL_S, Answer, connected, head_of

LOG = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_EARLY_S = 5.0
_PROGRESS_S = 2.0
_REDIRECTS = 4
_END_S = 60.0


class Transfers(HelperBase):
    """Uploads and downloads of VDIs; each within `timeout_s`."""

    def __init__(self, session: Session, *, timeout_s: float = 14400.0) -> None:
        super().__init__(session)
        self._timeout_s = timeout_s

    def upload(self, source: IO[bytes], size: int, vdi: str, disk_format: str, progress: Progress) -> None:
        """Write the `size` bytes of a raw or vhd image into a VDI. Raises HypervisorError with xapi's reason."""
        clock = _Clock(self._timeout_s, progress, "uploading")
        with self._task(f"upload of {size} bytes", clock) as task:
            target = self._target("/import_raw_vdi", task, vdi=vdi, format=disk_format)
            with self._at(f"PUT {{}} HTTP/1.1\r\nContent-Length: {size}\r\n", target, clock) as (link, answer):
                left = size
                while left > 0:
                    chunk = source.read(min(_CHUNK, left))
                    if not chunk:
                        raise DiskError(f"an image ended {left} bytes before its end")
                    link.sendall(chunk)
                    left -= len(chunk)
                    clock.tick(size - left)
                if answer is None:
                    _expect_success(head_of(link, STALL_S))

    def download(self, vdi: str, disk_format: str, path: Path, progress: Progress) -> str:
        """Write a VDI as a raw or vhd image to a new file at `path`, owner-readable; returns its sha256.

        On an error nothing is left there. Raises DiskError, DiskFullError, HypervisorError with xapi's reason.
        """
        clock, digest = _Clock(self._timeout_s, progress, "downloading"), hashlib.sha256()
        with contextlib.ExitStack() as undo:
            undo.callback(path.unlink, missing_ok=True)
            with self._task("download", clock) as task, _created(path) as file:
                target = self._target("/export_raw_vdi", task, vdi=vdi, format=disk_format)
                with self._at("GET {} HTTP/1.1\r\n", target, clock) as (link, answer):
                    _copy(link, answer or head_of(link, STALL_S), file, digest.update, clock)
            undo.pop_all()
        return digest.hexdigest()

    def _target(self, handler: str, task: str, **query: str) -> str:
        login = self.session.login()
        return f"{login.url}{handler}?{urlencode({'session_id': login.handle, 'task_id': task} | query)}"

    @contextlib.contextmanager
    def _task(self, what: str, clock: _Clock) -> Iterator[str]:
        """A task for one transfer; on leaving it has succeeded, or its reason for failing is raised."""
        label = f"micronova {what} {uuid.uuid4()}"
        task = self.make(
            lambda: next(iter(self.call("task.get_by_name_label", label)), None), "task.create", label, ""
        )  # fmt: skip
        try:
            yield task
        except (OSError, HypervisorError) as exc:
            reason = self._reason(task)
            if reason is not None:
                raise reason from exc
            if isinstance(exc, HypervisorError):
                raise
            raise HypervisorError(f"{what}: the connection broke: {exc.strerror or exc}") from exc
        except BaseException:
            self.session.cancel(task, what)
            self._forget(task)
            raise
        self.session.wait(task, what, timeout_s=max(clock.left(), _END_S), progress=clock.progress)

    def _reason(self, task: str) -> XapiError | None:
        """Why a transfer that broke failed, if xapi knows; it is over on return."""
        try:
            self.session.wait(task, "the transfer", timeout_s=1.0)
        except XapiError as exc:
            return None if exc.code == "TASK_CANCELLED" else exc
        except HypervisorError as exc:
            LOG.debug("a broken transfer: %s", exc)
        return None

    def _forget(self, task: str) -> None:
        with contextlib.suppress(HypervisorError):
            self.session.destroy("task", task)

    @contextlib.contextmanager
    def _at(self, head: str, target: str, clock: _Clock) -> Iterator[tuple[socket.socket, Answer | None]]:
        """A connection on which the head of a request was sent, and the answer's head if it came before the body."""
        for _ in range(_REDIRECTS):
            with connected(target, self.session.context) as link:
                parts = urlsplit(target)
                request = head.format(f"{parts.path}?{parts.query}")
                link.sendall(f"{request}Host: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
                answer = _early_head(link)
                if answer is None or answer.status not in {301, 302, 303, 307, 308}:
                    if answer is not None:
                        _expect_success(answer)
                    link.settimeout(STALL_S)
                    yield link, answer
                    return
                target = _next(target, answer)
                clock.tick(0)
        raise HypervisorError("a transfer is sent from host to host without end")


class _Clock:
    """Keeps a transfer's deadline, and tells now and then how far it is."""

    def __init__(self, timeout_s: float, progress: Progress, verb: str) -> None:
        self.progress, self._verb, self._timeout_s = progress, verb, timeout_s
        self._deadline, self._told = time.monotonic() + timeout_s, time.monotonic()

    def left(self) -> float:
        return self._deadline - time.monotonic()

    def tick(self, done: int) -> None:
        if self.left() <= 0:
            raise HypervisorError(f"{self._verb}: did not end within {self._timeout_s:g} s, {done} bytes were carried")
        if time.monotonic() - self._told > _PROGRESS_S:
            self._told = time.monotonic()
            self.progress(f"{self._verb}: {done // 1024**2} MiB")


def _early_head(link: socket.socket) -> Answer | None:
    """The head of the answer if it comes by itself; None when the host wants the body first."""
    try:
        return head_of(link, _EARLY_S)
    except TimeoutError:
        return None


def _expect_success(answer: Answer) -> None:
    if answer.status != 200:
        raise HypervisorError(f"the host refuses the transfer: HTTP {answer.reason}")


def _next(target: str, answer: Answer) -> str:
    location = answer.headers.get("Location", "")
    parts = urlsplit(location)
    if parts.scheme != "https" or not parts.hostname:
        raise HypervisorError(f"a transfer is sent to {urlsplit(location).netloc or 'nowhere'}, not by https")
    if not parts.port and (port := urlsplit(target).port):
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        location = parts._replace(netloc=f"{host}:{port}").geturl()
    return location


def _copy(link: socket.socket, answer: Answer, file: IO[bytes], seen: Callable[[bytes], None], clock: _Clock) -> None:
    """Write the body of an answer to a file that is on disk for good on return."""
    _expect_success(answer)
    length, done, chunk = answer.headers.get("Content-Length"), 0, answer.rest
    while True:
        seen(chunk)
        _write(file, chunk)
        done += len(chunk)
        clock.tick(done)
        if length is not None and done >= int(length):
            break
        chunk = link.recv(_CHUNK)
        if not chunk:
            break
    if length is not None and done != int(length):
        raise ConnectionError(f"{done} of {length} bytes came")
    with _told(file.name):
        file.truncate(done)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """A new file that its owner alone may read."""
    with _told(str(path)):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        yield file


def _write(file: IO[bytes], chunk: bytes) -> None:
    """Leave a hole where there is nothing but zeros."""
    with _told(str(file.name)):
        if chunk.count(0) == len(chunk):
            file.seek(len(chunk), os.SEEK_CUR)
        else:
            file.write(chunk)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Keep this machine's errors apart from the connection's."""
    try:
        yield
    except OSError as exc:
        raise disk_error(exc, what) from exc
