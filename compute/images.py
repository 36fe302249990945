"""The image registry: what instances boot from, where its bytes lie, and what they must be."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import ImageNotFoundError, InvalidInputError
from compute.policy import may_see, project_filter
from db import images
from db.images import Image
from db.session import Database
from virt.errors import ImageError

DISK_FORMATS = ("raw", "qcow2", "vhd", "aki", "ari", "tar")
_CHUNK = 4 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


def add(
    db: Database,
    context: RequestContext,
    images_path: Path,
    *,
    name: str,
    location: str,
    disk_format: str,
    sha256: str | None = None,
    kernel: str | None = None,
    ramdisk: str | None = None,
    min_disk_gb: int = 0,
    properties: Mapping[str, str] | None = None,
    public: bool = True,
) -> Image:
    """Register an image.

    A local file (path or file:// URL) is inspected and copied into `images_path`, its sha256 computed on the way and
    compared with `sha256` when given. An http(s) URL is recorded as it is. The name is taken from the start, so two
    adds of one name do not copy twice. Raises InvalidInputError, DuplicateError or ImageNotFoundError.
    """
    wanted = _checksum(sha256)
    source = _local_path(location)
    facts: dict[str, Any] = {
        "name": valid.name("image name", name),
        "disk_format": valid.one_of("disk_format", disk_format, DISK_FORMATS),
        "min_disk_gb": valid.whole("min_disk", min_disk_gb, least=0),
        "properties": valid.properties("property", properties or {}),
        "kernel_id": _reference(db, context, kernel, "aki"),
        "ramdisk_id": _reference(db, context, ramdisk, "ari"),
        "is_public": public,
        "project_id": None if context.is_admin else context.project_id,
        "location": valid.text("location", location, longest=1024),
        "sha256": wanted,
        "status": "active" if source is None else "saving",
    }
    with translated(duplicate=f"image {name!r:.60} exists"):
        image_id = db.run(images.create, **facts)
    if source is not None:
        _fill(db, image_id, source, images_path, disk_format, wanted)
    return get(db, context, str(image_id))


def get_all(db: Database, context: RequestContext) -> list[Image]:
    """Images by id: the public and the project's own; all for an administrator."""
    with translated():
        return db.query(images.list_all, project_id=project_filter(context))


def get(db: Database, context: RequestContext, key: str) -> Image:
    """An image by name or id; ImageNotFoundError when there is none that the caller may see."""
    with translated():
        image = db.query(images.find, key)
    if not (image.is_public or may_see(context, image.project_id)):
        raise ImageNotFoundError(f"no image {key!r:.80}")
    return image


def delete(db: Database, context: RequestContext, images_path: Path, key: str) -> Image:
    """Withdraw an image and remove our copy of it; InUseError while it is another's kernel or ramdisk.

    Instances keep what their host has cached.
    """
    image = get(db, context, key)
    if not may_see(context, image.project_id):
        raise ImageNotFoundError(f"image {image.name} is not this project's to delete")
    with translated():
        db.run(images.delete, image.id)
    _file(images_path, image.id).unlink(missing_ok=True)
    return image


def _fill(db: Database, image_id: int, source: Path, images_path: Path, disk_format: str, wanted: str | None) -> None:
    """Copy the bytes and make the image active; on any failure forget it."""
    target = _file(images_path, image_id)
    try:
        facts = _copy(source, target, disk_format, wanted)
        with translated():
            db.run(images.update, image_id, status="active", location=str(target), **facts)
    except BaseException:
        target.unlink(missing_ok=True)
        db.run(images.delete, image_id)
        raise


def _copy(source: Path, target: Path, disk_format: str, wanted: str | None) -> dict[str, Any]:
    """Copy into place atomically: a file of this name is whole, flushed and inspected, or not there."""
    draft = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open(source) as reader, draft.open("wb") as writer:
            digest = _stream(reader, writer)
        if wanted not in {None, digest}:
            raise InvalidInputError(f"image {source}: its sha256 is {digest}, not {wanted}")
        _inspect(draft, disk_format, str(source))
        size_bytes = draft.stat().st_size
        draft.rename(target)
        _sync_directory(target.parent)
    except OSError as exc:
        raise InvalidInputError(f"image {source}: {exc.strerror}: {exc.filename}") from exc
    finally:
        draft.unlink(missing_ok=True)
    return {"sha256": digest, "size_bytes": size_bytes}


def _stream(reader: IO[bytes], writer: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := reader.read(_CHUNK):
        digest.update(chunk)
        writer.write(chunk)
    writer.flush()
    os.fsync(writer.fileno())
    return digest.hexdigest()


def _open(source: Path) -> IO[bytes]:
    """Open a regular file; a directory or device is refused, and a pipe does not make us wait."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInputError(f"image {source} is not a regular file")
    return os.fdopen(descriptor, "rb")


def _inspect(path: Path, disk_format: str, name: str) -> None:
    from virt.image_format import inspect, refuse_cut_short

    try:
        inspect(path, disk_format, name)
        refuse_cut_short(path, disk_format, name)
    except ImageError as exc:
        raise InvalidInputError(str(exc)) from exc


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file(images_path: Path, image_id: int) -> Path:
    return images_path / f"image-{image_id:08x}"


def _local_path(location: str) -> Path | None:
    """The file that a location names; None for http(s)."""
    parts = urlsplit(location)
    if parts.scheme in {"http", "https"}:
        if not parts.hostname or parts.username or parts.password:
            raise InvalidInputError(f"location {location!r:.80}: an http(s) URL has a host and no user or password")
        return None
    if parts.scheme == "file" and not parts.netloc:
        return Path(unquote(parts.path))
    if "://" in location or not location:
        raise InvalidInputError(f"location {location!r:.80} is neither a file nor an http(s) URL")
    return Path(location).absolute()


def _checksum(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    if not _SHA256.fullmatch(sha256.lower()):
        raise InvalidInputError(f"sha256 {sha256!r:.80} is not 64 hexadecimal digits")
    return sha256.lower()


def _reference(db: Database, context: RequestContext, key: str | None, disk_format: str) -> int | None:
    """The id of a kernel or ramdisk image."""
    if key is None:
        return None
    image = get(db, context, key)
    if image.disk_format != disk_format:
        raise InvalidInputError(f"image {image.name} is {image.disk_format}, where {disk_format} is needed")
    return image.id
