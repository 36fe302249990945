"""Unpack an archive that strangers made into a container's root directory.

It runs as a child with limits on memory, CPU and time, because tar headers are believed by whoever reads them. Before
it writes anything it is locked into the target directory, so that not even a mistake here writes elsewhere. Refused:
names that are absolute or climb, members that would be written through a link, devices, owners outside the container's
range, and more bytes or files than allowed. Links are kept as text: nobody follows them but the container.
"""

from __future__ import annotations

import lzma
import os
import stat
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path, PurePosixPath

from virt.errors import NO_ROOM, DiskError, DiskFullError, ImageError, ProcessError, disk_error
from virt.execute import Execute, Limits, run

_LIMITS = Limits(address_space=1024**3, cpu_s=1800)
_CHUNK = 1024 * 1024
_REFUSED, _FULL = 3, 4
_REMOVE_S = 600.0
_SPECIAL = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an archive may hold, and whose its files become: user n of the archive is `first_id` + n of the host."""

    max_bytes: int
    max_files: int
    first_id: int
    ids: int


def unpack(
    archive: Path,
    target: Path,
    bounds: Bounds,
    *,
    name: str,
    timeout_s: float = 3600.0,
    guard: Callable[[], None] | None = None,
    execute: Execute = run,
) -> None:
    """Make `target` with what is in the archive; there is no such directory on an error.

    Raises ImageError with `name` and the reason, DiskError, and whatever `guard` raises.
    """
    child = f"import sys; sys.path[:] = {sys.path!r}; from virt.rootfs import main; main()"
    words = [sys.executable, "-I", "-c", child, str(archive), str(target), *map(str, astuple(bounds))]
    try:
        target.mkdir(mode=0o755)
    except OSError as exc:
        raise disk_error(exc, target) from exc
    try:
        execute(words, timeout_s=timeout_s, limits=_LIMITS, guard=guard)
    except ProcessError as exc:
        remove(target)
        raise _reason(exc, name) from exc
    except BaseException:
        remove(target)
        raise


def remove(path: Path, execute: Execute = run) -> None:
    """Remove a directory that a container wrote in, however deep; succeed if it is gone. Raises DiskError."""
    if not os.path.lexists(path):
        return
    try:
        execute(["rm", "-rf", "--one-file-system", "--", str(path)], timeout_s=_REMOVE_S)
    except ProcessError as exc:
        raise DiskError(str(exc)) from exc


def _reason(exc: ProcessError, name: str) -> ImageError | DiskError:
    words = exc.stderr.strip()
    if exc.exit_code == _REFUSED:
        return ImageError(f"image {name}: {words}")
    if exc.exit_code == _FULL:
        return DiskFullError(f"image {name}: {words}")
    return ImageError(f"image {name}: cannot be unpacked: {words.splitlines()[-1] if words else exc}")


class _RefusedError(Exception):
    pass


class _Unpacker:
    """Writes members below the current directory, which is the root of this process's world."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds, self._bytes, self._files = bounds, 0, 0

    def put(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Write one member."""
        path = self._checked(member)
        self._count(member)
        if not path.parts:
            self._own(path, member)
            os.chmod("/", member.mode & 0o7777)  # noqa: PTH101 - the root of a chroot
            return
        self._make_parents(path)
        self._write(archive, member, path)

    def finish(self) -> None:
        """Refuse a root that cannot be started."""
        if _kind(PurePosixPath("sbin")) is None or _kind(PurePosixPath("sbin/init")) is None:
            raise _RefusedError("it has no /sbin/init")

    def _checked(self, member: tarfile.TarInfo) -> PurePosixPath:
        path = _plain(member.name, member.name)
        if member.type in _SPECIAL:
            raise _RefusedError(f"{member.name!r:.200} is {_SPECIAL[member.type]}")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise _RefusedError(f"{member.name!r:.200} is of an unknown type")
        if not (0 <= member.uid < self._bounds.ids and 0 <= member.gid < self._bounds.ids):
            raise _RefusedError(f"{member.name!r:.200} belongs to {member.uid}:{member.gid}, which no container has")
        return path

    def _count(self, member: tarfile.TarInfo) -> None:
        self._files += 1
        self._bytes += max(member.size, 0) if member.isreg() else 0
        if self._files > self._bounds.max_files:
            raise _RefusedError(f"it has more than {self._bounds.max_files} files")
        if self._bytes > self._bounds.max_bytes:
            raise _RefusedError(f"its files have more than {self._bounds.max_bytes} bytes")

    def _make_parents(self, path: PurePosixPath) -> None:
        for parent in reversed(path.parents[:-1]):
            kind = _kind(parent)
            if kind is None:
                os.mkdir(parent, 0o755)  # noqa: PTH102
                os.chown(parent, self._bounds.first_id, self._bounds.first_id)
            elif kind != stat.S_IFDIR:
                raise _RefusedError(f"{str(path)!r:.200} would be written through {str(parent)!r:.200}, no directory")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        there = _kind(path)
        if there == stat.S_IFDIR and not member.isdir():
            raise _RefusedError(f"{member.name!r:.200} comes twice, once as a directory")
        if there is not None and there != stat.S_IFDIR:
            os.unlink(path)  # noqa: PTH108 - what comes later wins
            there = None
        if member.isdir():
            if there is None:
                os.mkdir(path, 0o700)  # noqa: PTH102
        elif member.issym():
            os.symlink(member.linkname, path)  # noqa: PTH211
        elif member.islnk():
            self._link(member, path)
            return
        else:
            self._copy(archive, member, path)
        self._own(path, member)
        if not member.issym():
            os.chmod(path, member.mode & 0o7777)  # noqa: PTH101

    def _link(self, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        source = _plain(member.linkname, member.name)
        if _kind(source) != stat.S_IFREG or any(_kind(parent) != stat.S_IFDIR for parent in source.parents[:-1]):
            raise _RefusedError(f"{member.name!r:.200} is a link to {member.linkname!r:.200}, which is no file in it")
        os.link(source, path, follow_symlinks=False)

    def _copy(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: PurePosixPath) -> None:
        source = archive.extractfile(member)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            while source is not None and (chunk := source.read(_CHUNK)):
                file.write(chunk)
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _own(self, path: PurePosixPath, member: tarfile.TarInfo) -> None:
        first = self._bounds.first_id
        os.chown("/" if not path.parts else path, first + member.uid, first + member.gid, follow_symlinks=False)


def _plain(name: str, member: str) -> PurePosixPath:
    """A path below the root as it is written; _RefusedError for one that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _RefusedError(f"{member!r:.200} leads out of the archive ({name!r:.200})")
    return path


def _kind(path: PurePosixPath) -> int | None:
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None


def _lock_in(target: str) -> None:
    """Make `target` the root of this process; nothing is imported any more, for that would be out of the archive."""
    os.chroot(target)
    os.chdir("/")
    sys.meta_path.clear()
    sys.path.clear()


def main() -> None:
    """The child: unpack, or say in one line why not."""
    archive_path, target, *numbers = sys.argv[1:]
    max_bytes, max_files, first_id, ids = map(int, numbers)
    unpacker = _Unpacker(Bounds(max_bytes=max_bytes, max_files=max_files, first_id=first_id, ids=ids))
    os.umask(0o077)
    try:
        with tarfile.open(archive_path, "r|*", errorlevel=2) as archive:
            os.chown(target, first_id, first_id)
            _lock_in(target)
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header in memory
                unpacker.put(archive, member)
            unpacker.finish()
    except _RefusedError as exc:
        _end(_REFUSED, str(exc))
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, MemoryError, ValueError, OverflowError) as exc:
        _end(_REFUSED, f"cannot be read as a tar archive: {exc or type(exc).__name__}")
    except OSError as exc:
        _end(_FULL if exc.errno in NO_ROOM else _REFUSED, f"{exc.strerror or exc}: {exc.filename or ''}")


def _end(status: int, words: str) -> None:
    sys.stderr.write(words.encode("ascii", "backslashreplace").decode() + "\n")
    sys.stderr.flush()
    os._exit(status)
