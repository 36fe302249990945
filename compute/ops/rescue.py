"""Boot an instance from a rescue image, with its own disk beside it."""

from __future__ import annotations

from dataclasses import replace

from compute.errors import ImageNotFoundError
from compute.settings import Settings
from compute.specs import image_spec
from compute.work import Work
from db import images
from db.errors import RowNotFoundError
from db.session import utcnow
from virt.driver import Rescuable, require
from virt.spec import ImageSpec


def rescue(work: Work, settings: Settings) -> None:
    """Stop the guest and boot the rescue image: the one that the flags name, or the instance's own."""
    driver = require(work.driver, Rescuable)
    spec = work.spec
    rescued = replace(
        spec,
        image=_image(work, settings.rescue_image_id, spec.image),
        kernel=_image(work, settings.rescue_kernel_id, spec.kernel),
        ramdisk=_image(work, settings.rescue_ramdisk_id, spec.ramdisk),
        volumes=(),
    )
    driver.rescue(spec, rescued, work.progress)
    work.changes["rescued_at"] = utcnow()


def unrescue(work: Work) -> None:
    """Boot the instance's own disk again."""
    require(work.driver, Rescuable).unrescue(work.spec)
    work.changes["rescued_at"] = None


def _image(work: Work, key: str | None, own: ImageSpec | None) -> ImageSpec | None:
    if key is None:
        return own
    try:
        return image_spec(work.db.query(images.find, key))
    except RowNotFoundError as exc:
        raise ImageNotFoundError(f"rescue image {key} is not registered") from exc
