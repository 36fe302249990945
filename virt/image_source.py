"""Open the place that an image's bytes come from: a file under `images_path`, or an http(s) server."""

from __future__ import annotations

import contextlib
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from io import BufferedIOBase
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from virt.errors import ImageError
from virt.spec import ImageSpec

_SOCKET_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Source:
    """An open image: `size` is what its server promised, None when it did not say."""

    image: ImageSpec
    file: BufferedIOBase
    size: int | None

    def read(self, length: int, guard: Callable[[], None] = lambda: None) -> bytes:
        """The next `length` bytes, fewer at the end alone. Raises ImageError.

        `guard` is called whenever some came, and may end it by raising: a server may send a byte now and then.
        """
        pieces = []
        try:
            while length and (piece := self.file.read1(length)):
                guard()
                pieces.append(piece)
                length -= len(piece)
        except (OSError, HTTPException) as exc:
            raise ImageError(f"image {self.image.name}: {self.image.location}: {exc}") from exc
        return b"".join(pieces)


@contextlib.contextmanager
def open_source(image: ImageSpec, images_path: Path) -> Iterator[Source]:
    """Open the image's bytes. Raises ImageError when there is no such thing or it may not be read."""
    with _open(image, images_path) as file:
        length = getattr(file, "length", None)
        yield Source(image, file, length)


def _open(image: ImageSpec, images_path: Path) -> BufferedIOBase:
    try:
        parts = urlsplit(image.location)
    except ValueError as exc:
        raise ImageError(f"image {image.name}: {image.location!r}: {exc}") from exc
    if parts.scheme in {"http", "https"}:
        return _open_url(image)
    if parts.scheme == "file" and not parts.netloc:
        return _open_file(image, Path(unquote(parts.path)), images_path)
    if not parts.scheme and image.location.startswith("/"):
        return _open_file(image, Path(image.location), images_path)
    raise ImageError(f"image {image.name}: {image.location!r} is neither an absolute path nor a file or http(s) URL")


def _open_file(image: ImageSpec, path: Path, images_path: Path) -> BufferedIOBase:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(images_path.resolve()):
            raise ImageError(f"image {image.name}: {path} is not under images_path ({images_path})")
        if not stat.S_ISREG(real.stat().st_mode):
            raise ImageError(f"image {image.name}: {path} is not a regular file")
        return real.open("rb")
    except OSError as exc:
        raise ImageError(f"image {image.name}: {path}: {exc.strerror}") from exc


class SameOrSafer(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) only, and never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        allowed = {"https"} if req.type == "https" else {"http", "https"}
        if urlsplit(newurl).scheme not in allowed:
            raise ImageError(f"redirected from {req.full_url} to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows http(s) and nothing else: no file, ftp or data URLs."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(), SameOrSafer(),
    ):  # fmt: skip
        opener.add_handler(handler)
    return opener


def _open_url(image: ImageSpec) -> BufferedIOBase:
    try:
        response: BufferedIOBase = _opener().open(image.location, timeout=_SOCKET_TIMEOUT_S)
    except ImageError as exc:
        raise ImageError(f"image {image.name}: {exc}") from exc
    except (urllib.error.URLError, OSError, ValueError) as exc:
        raise ImageError(f"image {image.name}: {image.location}: {exc}") from exc
    return response
