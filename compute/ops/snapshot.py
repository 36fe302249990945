"""Make an image of an instance's root disk."""

from __future__ import annotations

from pathlib import Path

from compute.settings import Settings
from compute.work import Work
from db import images
from db.session import Tx
from virt.driver import Snapshots, require


def snapshot(work: Work, settings: Settings) -> None:
    """Write the root disk into `images_path` and complete the image record; a failure leaves neither."""
    image_id: int = work.args["image_id"]
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


def path_of(settings: Settings, image_id: int) -> Path:
    """Where the image's file goes."""
    return Path(settings.images_path) / f"{image_id:08x}"


def discard(tx: Tx, image_id: int) -> None:
    """Drop the record of an image that was never completed; a finished one stays."""
    if images.get(tx, image_id, read_deleted=True).status == "saving":
        images.delete(tx, image_id)
