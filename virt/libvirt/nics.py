"""Interfaces of guests, plugged in and out by their MAC."""

from __future__ import annotations

import logging
from dataclasses import replace

from virt.errors import (
    DriverTimeoutError,
    GuestStateError,
    HypervisorError,
    HypervisorUnreachableError,
    NetworkError,
    VirtError,
)
from virt.firewall.base import FirewallDriver
from virt.libvirt.devices import Devices, Element
from virt.libvirt.domain import interface_for
from virt.network.networks import Networks
from virt.spec import InstanceSpec, Vif

LOG = logging.getLogger(__name__)


class Nics:
    """Plugs interfaces on bridges of this host, behind their filters from the first packet on."""

    def __init__(self, devices: Devices, networks: Networks, firewall: FirewallDriver) -> None:
        self._devices, self._networks, self._firewall = devices, networks, firewall

    def attach(self, spec: InstanceSpec, vif: Vif) -> None:
        """Plug an interface in; succeed if it is in place. Raises GuestNotFoundError, NetworkError."""
        view = self._devices.view(spec)
        if all(_find(devices, vif) is not None for devices in view.each()):
            return
        filtered = replace(spec, vifs=(*_without(spec, vif), vif))
        try:
            self._networks.plug_vif(spec, vif)
            self._firewall.prepare_instance_filter(filtered)
            interface = interface_for(self._firewall.behind_filters(filtered).vifs[-1])
            self._devices.plug(spec, view, interface.xml(), lambda devices: _find(devices, vif))
        except (HypervisorUnreachableError, DriverTimeoutError):
            raise
        except VirtError as exc:
            self._forget(spec, vif)
            if isinstance(exc, HypervisorError | GuestStateError):
                raise NetworkError(f"interface {vif.mac}: {exc}") from exc
            raise
        self._firewall.apply_instance_filter(filtered)
        LOG.info("guest %s: interface %s attached on %s", spec.name, vif.mac, vif.bridge)

    def detach(self, spec: InstanceSpec, vif: Vif) -> None:
        """Plug an interface out; succeed if it is not there.

        Raises GuestNotFoundError, and NetworkError when the guest does not let go: it is attached still.
        """
        if any(_find(devices, vif) is not None for devices in self._devices.view(spec).each()):
            reason = self._devices.unplug(spec, lambda devices: _find(devices, vif))
            if reason is not None:
                raise NetworkError(f"interface {vif.mac} stays with guest {spec.name}: {reason}")
            LOG.info("guest %s: interface %s detached", spec.name, vif.mac)
        self._forget(spec, vif)

    def _forget(self, spec: InstanceSpec, vif: Vif) -> None:
        """Have nothing on the host for an interface that the guest has not got."""
        self._firewall.prepare_instance_filter(replace(spec, vifs=_without(spec, vif)))
        self._networks.unplug_vif(spec, vif)


def _without(spec: InstanceSpec, vif: Vif) -> tuple[Vif, ...]:
    return tuple(one for one in spec.vifs if one.mac.lower() != vif.mac.lower())


def _find(devices: Element, vif: Vif) -> Element | None:
    return next((one for one in devices.findall("interface") if _mac(one) == vif.mac.lower()), None)


def _mac(interface: Element) -> str:
    return str(interface.find("mac").get("address")).lower()
