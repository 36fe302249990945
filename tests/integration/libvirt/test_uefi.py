"""A guest that starts from UEFI, with a memory of its own that goes when it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.integration.processes import unavailable

FIRMWARES = Path("/usr/share/qemu/firmware")


def test_a_guest_boots_by_uefi_and_its_nvram_goes_with_it(driver, guests, conf):
    if not list(FIRMWARES.glob("*edk2-x86_64.json")):
        unavailable("no UEFI firmware: apt-get install ovmf (bin/test as root does it)")
    plain = guests.with_kernel(memory_mb=192)
    image = replace(plain.image, properties={"hw_firmware_type": "uefi"})
    spec = replace(plain, image=image)
    driver.spawn(spec)
    guests.wait_for(spec, "GUEST-READY", usual_s=40)
    assert "efi: EFI v2" in guests.console(spec)
    nvram = Path(conf.instances_path) / spec.name / "nvram.fd"
    assert nvram.stat().st_size > 0
    driver.destroy(spec)
    assert not nvram.parent.exists()
    assert driver.list_guests() == []
