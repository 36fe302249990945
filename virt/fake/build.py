"""Make, remove and rescue guests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from virt.errors import ImageError
from virt.fake import devices, filters
from virt.fake.hypervisor import FakeHypervisor
from virt.fake.records import Disk, Domain, Footprint
from virt.power_state import Power
from virt.spec import ImageSpec, InstanceSpec

Step = Callable[[str], None]
IMAGE_MB = 1024
RESCUE_DISK = "rescue"


def spawn(host: FakeHypervisor, spec: InstanceSpec, step: Step) -> None:
    """Make and start a guest, step by step; an error or a cancellation leaves nothing."""
    with host.building(spec.name) as held, ExitStack() as undo:
        undo.callback(abandon, host, held, spec)
        step("image")
        check_images(spec)
        step("disks")
        held.disks = _make_disks(host, spec)
        host.save(held)
        assemble(host, held, spec, step)
        undo.pop_all()


def assemble(host: FakeHypervisor, held: Footprint, spec: InstanceSpec, step: Step) -> None:
    """Filters, interfaces, volumes and the guest itself, around disks that are there."""
    step("filters")
    held.filters = filters.render(spec)
    host.save(held)
    step("network")
    held.taps = {vif.mac: vif.dev for vif in spec.vifs}
    host.save(held)
    step("volumes")
    devices.match_volumes(host, held, spec)
    host.save(held)
    step("start")
    domain = Domain(uuid=spec.uuid, memory_mb=spec.memory_mb, vcpus=spec.vcpus)
    domain.files = {path: base64.b64encode(content).decode() for path, content in spec.injected_files}
    if spec.admin_password is not None:
        domain.password_sha256 = hashlib.sha256(spec.admin_password.encode()).hexdigest()
    with host.lock:
        host.check_memory(max(0, spec.memory_mb - held.reserved_mb))
        boot(domain, "first")
        host.define(held, domain)


def boot(domain: Domain, how: str) -> None:
    """The guest's firmware starts."""
    domain.turn(Power.RUNNING)
    domain.boots += 1
    domain.last_boot = how
    domain.say("FAKE CONSOLE OUTPUT")
    domain.say(f"boot {domain.boots} ({how}): {domain.vcpus} vcpus, {domain.memory_mb} MiB")
    domain.say("login: ")


def redefine(host: FakeHypervisor, held: Footprint, domain: Domain, spec: InstanceSpec) -> None:
    """Make a guest that is off what `spec` says: sizes, interfaces, volumes, filters, its own disks."""
    host.check_memory(spec.memory_mb - (domain.memory_mb if domain.power.is_on else 0))
    devices.match_volumes(host, held, spec)
    domain.memory_mb, domain.vcpus, domain.rescued = spec.memory_mb, spec.vcpus, False
    held.disks.pop(RESCUE_DISK, None)
    held.taps = {vif.mac: vif.dev for vif in spec.vifs}
    held.filters = filters.render(spec)


def remove(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Remove a guest and everything of it; succeed if it is gone. What a resize keeps stays."""
    with host.lock:
        held = host.held(spec.name)
        if held is None:
            return
        devices.release_volumes(host, held, spec.uuid)
        host.erase(held)
    host.commons.void_ticket(host.host, spec.name)


def rescue(host: FakeHypervisor, spec: InstanceSpec, rescue_spec: InstanceSpec, step: Step) -> None:
    """Boot the guest from another image; its own disks become the second ones."""
    host.domain(spec.name)
    step("image")
    check_images(rescue_spec)
    step("disks")
    with ExitStack() as undo:
        with host.changing(spec.name) as (held, _):
            host.check_disk(IMAGE_MB)
            held.disks[RESCUE_DISK] = host.new_disk(IMAGE_MB)
        undo.callback(_drop_rescue_disk, host, spec.name)
        step("start")
        with host.changing(spec.name) as (_, domain):
            domain.rescued = True
            boot(domain, "rescue")
        undo.pop_all()


def unrescue(host: FakeHypervisor, spec: InstanceSpec) -> None:
    """Boot the guest's own disks again; a guest that is not rescued is left as it is."""
    with host.changing(spec.name) as (held, domain):
        if domain.rescued:
            redefine(host, held, domain, spec)
            boot(domain, "unrescue")


def check_images(spec: InstanceSpec) -> None:
    """ImageError unless every image of a guest can be had and fits."""
    if spec.image is None and not spec.root_volumes:
        raise ImageError(f"guest {spec.name} has neither an image nor a volume to boot from")
    for image in (spec.root_image, spec.kernel, spec.ramdisk):
        if image is not None:
            _check_image(image, spec.root_gb)


def _check_image(image: ImageSpec, root_gb: int) -> None:
    url = urlsplit(image.location)
    if url.scheme in {"", "file"}:
        if not Path(url.path).is_file():
            raise ImageError(f"image {image.name}: there is no file {url.path}")
    elif url.scheme not in {"http", "https"} or (url.hostname or "").endswith("invalid"):
        # .invalid is the domain that never resolves (RFC 2606); every other name is taken to serve the image.
        raise ImageError(f"image {image.name}: cannot fetch {image.location}")
    if 0 < root_gb < image.min_disk_gb:
        raise ImageError(f"image {image.name} needs {image.min_disk_gb} GiB, the root disk has {root_gb}")


def _make_disks(host: FakeHypervisor, spec: InstanceSpec) -> dict[str, Disk]:
    root_mb = 0 if spec.root_volumes else spec.root_gb * 1024 or IMAGE_MB
    sizes_mb = {"root": root_mb, "ephemeral": spec.ephemeral_gb * 1024, "swap": spec.swap_mb}
    host.check_disk(sum(sizes_mb.values()))
    return {role: host.new_disk(size_mb) for role, size_mb in sizes_mb.items() if size_mb}


def abandon(host: FakeHypervisor, held: Footprint, spec: InstanceSpec) -> None:
    """Take back all that a broken build did, also when someone removed the guest under it."""
    devices.release_volumes(host, held, spec.uuid)
    host.erase(held)


def _drop_rescue_disk(host: FakeHypervisor, name: str) -> None:
    held = host.held(name)
    if held is not None and RESCUE_DISK in held.disks:
        del held.disks[RESCUE_DISK]
        host.save(held)
