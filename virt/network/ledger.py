"""Which guests of this host use which network, and what was made for it: kept in files, so that a crash loses nothing.

An interface's file says what DHCP gives it, and that the network is in use. A network's folder is there before anything
is made for it, and until all of it is gone.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from virt.errors import NetworkError
from virt.network.dhcp import Folder, host_line
from virt.spec import InstanceSpec, Network, Vif

LOG = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_ADDRESSES = ("gateway", "dhcp_start", "gateway_v6", "dhcp_server")
Result = TypeVar("Result")


class Ledger:
    """The networks' folders below one directory."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def folder(self, network_id: int) -> Folder:
        """The folder of a network."""
        return Folder(self._path / str(network_id))

    def networks(self) -> list[Network]:
        """Every network that has a folder, by id. Raises NetworkError."""
        read = _told(self._path, lambda: [_read(folder / "network") for folder in self._folders()])
        return [network for network in read if network is not None]

    def enter(self, spec: InstanceSpec, vif: Vif) -> None:
        """An interface uses its network from now on. Raises NetworkError."""

        def write() -> None:
            folder = self.folder(vif.network.id)
            _make(folder.hosts)
            _write(folder.path / "network", json.dumps(asdict(vif.network), default=str))
            line = host_line(vif, spec.hostname, is_way_out=_is_way_out(spec, vif))
            _write(folder.hosts / _key(spec.uuid, vif.mac), line + "\n")

        with self._lock:
            _told(self._path, write)

    def leave(self, network_id: int, uuid: str, mac: str = "") -> list[tuple[str, str]]:
        """An interface of a guest, or every one, uses the network no more; the MAC and IPv4 address of each."""
        return _told(self._path, lambda: list(self._leave(network_id, uuid, mac)))

    def guests(self, network_id: int) -> set[str]:
        """The uuids of the guests that use a network."""
        return _told(self._path, lambda: {file.name[:36] for file in _files(self.folder(network_id).hosts)})

    def claim(self, network_id: int, thing: str) -> None:
        """Remember that this is made here, before it is. Raises NetworkError."""
        made = self.made(network_id)
        if thing not in made:
            lines = [_boot(), *sorted({*made, thing})]
            _told(self._path, lambda: _write(self.folder(network_id).path / "made", "\n".join(lines)))

    def made(self, network_id: int) -> set[str]:
        """What was made here since the host booted: what was made before that, the kernel has forgotten."""
        file = self.folder(network_id).path / "made"
        lines = _told(self._path, lambda: file.read_text().splitlines() if file.exists() else [])
        return set(lines[1:]) if lines[:1] == [_boot()] else set()

    def forget(self, network_id: int) -> None:
        """Remove a network's folder, and the directory when it is empty. Raises NetworkError."""

        def remove() -> None:
            folder = self.folder(network_id).path
            if folder.exists():
                shutil.rmtree(folder)
            if self._path.exists() and not any(self._path.iterdir()):
                self._path.rmdir()

        with self._lock:
            _told(self._path, remove)

    def _folders(self) -> list[Path]:
        found = self._path.iterdir() if self._path.exists() else ()
        named = [folder for folder in found if folder.name.isdigit() and (folder / "network").exists()]
        return sorted(named, key=lambda folder: int(folder.name))

    def _leave(self, network_id: int, uuid: str, mac: str) -> Iterator[tuple[str, str]]:
        for file in _files(self.folder(network_id).hosts):
            if file.name.startswith(_key(uuid, mac)):
                own, *rest = file.read_text().strip().split(",")
                file.unlink()
                yield from ((own, address) for address in rest if address[:1].isdigit() and "." in address)


def _is_way_out(spec: InstanceSpec, vif: Vif) -> bool:
    """True for the first interface whose network has a gateway, as on a config drive."""
    with_gateway = [one.mac.lower() for one in spec.vifs if one.network.gateway is not None]
    return not with_gateway or with_gateway[0] == vif.mac.lower()


def _key(uuid: str, mac: str) -> str:
    return f"{uuid}-{mac.replace(':', '').lower()}"


def _files(folder: Path) -> list[Path]:
    """The interfaces' files; one that is being written has another form of name."""
    return sorted(file for file in folder.glob("*") if not file.name.startswith(".")) if folder.exists() else []


def _make(folder: Path) -> None:
    """Have a directory that every user can pass through, as far as it is made here."""
    if not folder.exists():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def _write(file: Path, text: str) -> None:
    """Have this in a file that everybody may read, at once: dnsmasq reads it when it appears."""
    if file.exists() and file.read_text() == text:
        return
    part = file.with_name(f".{file.name}")
    part.write_text(text)
    part.chmod(0o644)
    part.replace(file)


def _read(file: Path) -> Network | None:
    try:
        facts: dict[str, Any] = json.loads(file.read_text())
        parsed = {name: ip_address(facts[name]) for name in _ADDRESSES if facts[name] is not None}
        return Network(**{**facts, **parsed, "dns": tuple(ip_address(server) for server in facts["dns"])})
    except (ValueError, TypeError, KeyError) as exc:
        LOG.error("%s is no network's (%s): remove its folder", file, exc)
        return None


def _boot() -> str:
    return _BOOT.read_text().strip()


def _told(path: Path, work: Callable[[], Result]) -> Result:
    try:
        return work()
    except OSError as exc:
        raise NetworkError(f"{path}: {exc}") from exc
