"""Plug devices into guests and out: in what is defined, and in what runs. A guest that runs may not let go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lxml import etree

from virt.errors import DriverTimeoutError, GuestStateError, HypervisorError, HypervisorUnreachableError
from virt.libvirt import host as lv
from virt.libvirt.domains import Domains
from virt.power_state import Power
from virt.spec import InstanceSpec

_POLL_S = 0.2
_ASK_AGAIN_S = 1.0

Element = Any
Finder = Callable[[Element], Element | None]
"""Given an element `devices`, the device that is meant, or None."""


@dataclass(frozen=True, slots=True)
class View:
    """The `devices` of a guest: as it runs (None when it is off), and as it is defined."""

    live: Element | None
    defined: Element

    def each(self) -> list[Element]:
        """Both, or the one that there is."""
        return [self.defined] if self.live is None else [self.live, self.defined]


class Devices:
    """Devices of guests. `unplug_timeout_s`: how long a guest may take to let go of one."""

    def __init__(self, domains: Domains, *, unplug_timeout_s: float = 60.0) -> None:
        self._domains, self._unplug_timeout_s = domains, unplug_timeout_s

    def view(self, spec: InstanceSpec) -> View:
        """What the guest has now. Raises GuestNotFoundError."""

        def work(domain: lv.Domain) -> View:
            live = domain.XMLDesc(0) if domain.isActive() else None
            return View(_devices(live) if live else None, _devices(domain.XMLDesc(lv.XML_INACTIVE)))

        return self._domains.ask(spec, work)

    def plug(self, spec: InstanceSpec, view: View, xml: str, find: Finder) -> None:
        """Put a device wherever `view` says that the guest lacks it: all of it or nothing."""
        flags = lv.AFFECT_CONFIG if find(view.defined) is None else 0
        if view.live is not None and find(view.live) is None:
            flags |= lv.AFFECT_LIVE
        if flags:
            self._domains.ask(spec, lambda domain: domain.attachDeviceFlags(xml, flags))

    def unplug(self, spec: InstanceSpec, find: Finder) -> str | None:
        """Take a device out, and return None when the guest has let go of it; else why not, and it stays.

        Raises GuestNotFoundError.
        """
        reason = self._unplug_live(spec, find)
        if reason is not None:
            return reason
        found = find(self.view(spec).defined)
        if found is not None:
            self._domains.ask(spec, lambda domain: domain.detachDeviceFlags(_text(found), lv.AFFECT_CONFIG))
        return None

    def _unplug_live(self, spec: InstanceSpec, find: Finder) -> str | None:
        """Ask again and again: a guest that is booting is deaf."""
        deadline, ask_at, reason = time.monotonic() + self._unplug_timeout_s, 0.0, "the guest did not let go of it"
        while (found := self._found_live(spec, find)) is not None:
            if self._domains.power(spec) is Power.PAUSED:
                return "the guest is paused, so it cannot let go of it"
            if time.monotonic() >= deadline:
                return f"{reason} within {self._unplug_timeout_s:g} s"
            if time.monotonic() >= ask_at:
                reason = self._ask_to_let_go(spec, found) or reason
                ask_at = time.monotonic() + _ASK_AGAIN_S
            time.sleep(_POLL_S)
        return None

    def _found_live(self, spec: InstanceSpec, find: Finder) -> Element | None:
        live = self.view(spec).live
        return None if live is None else find(live)

    def _ask_to_let_go(self, spec: InstanceSpec, found: Element) -> str | None:
        """What libvirt has against it, if anything; whether it is gone shows in the guest's XML alone."""
        try:
            self._domains.ask(spec, lambda domain: domain.detachDeviceFlags(_text(found), lv.AFFECT_LIVE))
        except (HypervisorUnreachableError, DriverTimeoutError):
            raise
        except (HypervisorError, GuestStateError) as exc:
            return f"{exc}; the guest did not let go of it"
        return None


def _devices(xml: str) -> Element:
    return etree.fromstring(xml).find("devices")


def _text(element: Element) -> str:
    return etree.tostring(element, encoding="unicode")
