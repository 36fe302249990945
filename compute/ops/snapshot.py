"""Make an image of an instance's root disk."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from compute.db_errors import translated
from compute.errors import ComputeError, InvalidStateError
from compute.settings import Settings
from compute.work import Work
from db import images
from db.errors import RowNotFoundError
from db.session import Tx
from virt.driver import Snapshots, require

LOG = logging.getLogger(__name__)
_WAITS = "saving"


def snapshot(work: Work, settings: Settings) -> None:
    """Write the root disk into `images_path` and complete the image record; a failure leaves neither."""
    image_id: int = work.args["image_id"]
    refuse_if_finished(work, image_id)
    work.when_failed.append(lambda tx: discard(tx, image_id))
    driver = require(work.driver, Snapshots)
    path = path_of(settings, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    work.undo.callback(path.unlink, missing_ok=True)
    made = driver.snapshot(work.spec, str(path), work.progress)

    def complete(tx: Tx) -> None:
        images.update(
            tx,
            image_id,
            status="active",
            location=made.path,
            disk_format=made.disk_format,
            size_bytes=made.size_bytes,
            sha256=made.sha256,
        )

    work.when_done.append(complete)


def refuse_if_finished(work: Work, image_id: int) -> None:
    """Raise unless the record waits for a snapshot: an outside caller's may name an image that has a file already."""
    with translated():
        image = work.db.query(images.get, image_id)
    if image.status != _WAITS:
        raise InvalidStateError(f"image {image_id} is {image.status}: a snapshot goes into one that is {_WAITS}")


def give_up(work: Work, settings: Settings) -> None:
    """Have nothing left of a snapshot that was interrupted, neither file nor record; a finished image is left alone."""
    image_id: int = work.args["image_id"]
    try:
        refuse_if_finished(work, image_id)
    except ComputeError as exc:
        LOG.info("instance %d: nothing of its snapshot is to be removed: %s", work.instance.id, exc)
        return
    work.undo.callback(path_of(settings, image_id).unlink, missing_ok=True)
    work.when_failed.append(lambda tx: discard(tx, image_id))


def path_of(settings: Settings, image_id: int) -> Path:
    """Where the image's file goes."""
    return Path(settings.images_path) / f"{image_id:08x}"


def discard(tx: Tx, image_id: int) -> None:
    """Drop the record of an image that was never completed; a finished one stays, and there may be none."""
    with suppress(RowNotFoundError):
        if images.get(tx, image_id).status == _WAITS:
            images.delete(tx, image_id)
