"""Fetch images into a cache that is never torn, and hand them to guests as hard links.

Layout: `_base/<key>.<format>` complete and inspected; `_base/<key>.<format>.part` being fetched; `.lock` beside it.
A guest holds a hard link of the file it was built from, so that an evicted image lives on for as long as it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from virt import image_format
from virt.driver import Progress, no_progress
from virt.errors import NO_ROOM, DiskError, DiskFullError, ImageChecksumError, ImageError
from virt.image_source import Source, open_source
from virt.spec import ImageSpec

LOG = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_ZEROS = bytes(_CHUNK)
_POLL_S = 0.1
_PROGRESS_S = 2.0
_FORMATS = image_format.FORMATS


class ImageCache:
    """The images of one host, shared by every thread and process that uses the same directory."""

    def __init__(
        self,
        directory: Path,
        images_path: Path,
        *,
        max_bytes: int = 100 * 1024**3,
        max_plain_bytes: int = 512 * 1024**2,
        timeout_s: float = 3600.0,
    ) -> None:
        self._directory, self._images_path = directory, images_path
        self._max_bytes, self._max_plain_bytes, self._timeout_s = max_bytes, max_plain_bytes, timeout_s

    @property
    def largest_gb(self) -> int:
        """The largest image that is taken, in GiB."""
        return self._max_bytes // image_format.GIB

    def provide(self, image: ImageSpec, link: Path, progress: Progress = no_progress) -> int:
        """Put the image at `link` (a hard link on the cache), fetching it once however many ask at a time.

        Returns its virtual size in bytes. Raises ImageError, ImageChecksumError, DiskError.
        """
        path = self._directory / self._name(image)
        deadline = time.monotonic() + self._timeout_s
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(path, fcntl.LOCK_SH, deadline, progress):
                if path.exists():
                    return self._link(path, link, image)
            with _locked(path, fcntl.LOCK_EX, deadline, progress):
                if not path.exists():
                    self._fetch(image, path, deadline, progress)
                return self._link(path, link, image)
        except OSError as exc:
            raise (DiskFullError if exc.errno in NO_ROOM else DiskError)(f"image {image.name}: {exc}") from exc

    def evict(self, unused_for_s: float = 86400.0) -> list[str]:
        """Remove images that no guest has used for so long, and what a fetch that was killed left; never one in use.

        Returns their names.
        """
        for part in sorted(self._directory.glob("*.part")):
            self._drop(part, part.with_suffix(""))
        images = [path for path in sorted(self._directory.glob("*.*")) if path.suffix.lstrip(".") in _FORMATS]
        return [path.name for path in images if self._evict_one(path, unused_for_s)]

    @staticmethod
    def _drop(part: Path, path: Path) -> None:
        """Remove the beginning of an image that nobody is fetching."""
        with contextlib.suppress(ImageError), _locked(path, fcntl.LOCK_EX, time.monotonic(), no_progress):
            part.unlink(missing_ok=True)

    def _evict_one(self, path: Path, unused_for_s: float) -> bool:
        try:
            with _locked(path, fcntl.LOCK_EX, time.monotonic(), no_progress):
                facts = path.stat()
                if facts.st_nlink > 1 or time.time() - facts.st_atime < unused_for_s:
                    return False
                path.unlink()
        except (ImageError, FileNotFoundError):  # in use just now, or gone already
            return False
        LOG.info("image cache: removed %s", path.name)
        return True

    @staticmethod
    def _name(image: ImageSpec) -> str:
        if image.disk_format not in _FORMATS:
            raise ImageError(f"image {image.name}: disk format {image.disk_format} is not supported")
        if image.sha256 is None:
            where = hashlib.sha256(image.location.encode()).hexdigest()[:16]
            return f"{image.id:08x}-{where}.{image.disk_format}"
        if len(image.sha256) != 64 or set(image.sha256.lower()) - set("0123456789abcdef"):
            raise ImageError(f"image {image.name}: {image.sha256!r} is not a sha256 digest")
        return f"{image.sha256.lower()}.{image.disk_format}"

    def _link(self, path: Path, link: Path, image: ImageSpec) -> int:
        size = image_format.inspect(path, image.disk_format, image.name)
        os.utime(path)  # the age that `evict` goes by
        link.unlink(missing_ok=True)
        os.link(path, link)
        return size

    def _fetch(self, image: ImageSpec, path: Path, deadline: float, progress: Progress) -> None:
        part = path.with_name(path.name + ".part")
        LOG.info("image %s: fetching", image.name)
        try:
            guard = _guard(image, deadline, progress)
            with _created(part) as target, open_source(image, self._images_path) as source:
                digest = self._copy(image, source, target, guard)
                os.fsync(target.fileno())
            if image.sha256 and digest != image.sha256.lower():
                raise ImageChecksumError(f"image {image.name}: its sha256 is {digest}, not {image.sha256}")
            image_format.inspect(part, image.disk_format, image.name)
            whole = part.stat().st_size
            image_format.refuse_cut_short(part, image.disk_format, image.name, lambda: guard(whole))
            part.replace(path)
            _sync_directory(path.parent)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, image: ImageSpec, source: Source, target: IO[bytes], guard: Callable[[int], None]) -> str | None:
        plain = image.disk_format in image_format.PLAIN_FORMATS
        limit, done = (self._max_plain_bytes if plain else self._max_bytes), 0
        digest = hashlib.sha256() if image.sha256 else None
        while chunk := source.read(_left(source, done), partial(guard, done)):
            done += len(chunk)
            if done > limit:
                raise ImageError(f"image {image.name}: larger than {limit} bytes")
            if digest is not None:
                digest.update(chunk)
            _write_sparse(target, chunk)
            guard(done)
        if not done or (source.size is not None and done != source.size):
            raise ImageError(f"image {image.name}: {done} bytes came, {source.size or 'some'} were promised")
        target.truncate(done)
        return digest.hexdigest() if digest else None


def _left(source: Source, done: int) -> int:
    """How many bytes to read next: never more than were promised, for which a server would be waited for."""
    return _CHUNK if source.size is None else min(_CHUNK, source.size - done)


def _guard(image: ImageSpec, deadline: float, progress: Progress) -> Callable[[int], None]:
    """A function to call after each chunk: keeps the deadline, and tells how far it is now and then."""
    told = time.monotonic()

    def check(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now > deadline:
            raise ImageError(f"image {image.name}: fetching passed its deadline after {done} bytes")
        if now - told > _PROGRESS_S:
            told = now
            progress(f"downloading image: {done // 1024**2} MiB")

    return check


@contextlib.contextmanager
def _locked(path: Path, how: int, deadline: float, progress: Progress) -> Iterator[None]:
    """Hold the image's lock file, across threads and processes. Polls, so that green threads may wait too."""
    with path.with_name(path.name + ".lock").open("ab") as file:
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() >= deadline:
                    raise ImageError(f"image {path.name}: still being fetched by another at the deadline") from exc
                progress("waiting for image")
                time.sleep(_POLL_S)
        yield


@contextlib.contextmanager
def _created(path: Path) -> Iterator[IO[bytes]]:
    """A new file that its owner alone may write; the hypervisor's user reads it through a guest's link."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        yield file


def _write_sparse(target: IO[bytes], chunk: bytes) -> None:
    """Leave a hole where the image has nothing but zeros."""
    if chunk == _ZEROS:
        target.seek(len(chunk), os.SEEK_CUR)
    else:
        target.write(chunk)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
