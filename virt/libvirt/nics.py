"""Interfaces of guests, plugged in and out by their MAC."""

from __future__ import annotations

import logging
from dataclasses import replace

from virt.errors import DriverTimeoutError, GuestStateError, HypervisorError, HypervisorUnreachableError, NetworkError
from virt.firewall.noop import NoopFirewall
from virt.libvirt.devices import Devices, Element
from virt.libvirt.domain import interface_for
from virt.network import Bridges
from virt.spec import InstanceSpec, Vif

LOG = logging.getLogger(__name__)


class Nics:
    """Plugs interfaces on bridges of this host, behind their filters from the first packet on."""

    def __init__(self, devices: Devices, networks: Bridges, firewall: NoopFirewall) -> None:
        self._devices, self._networks, self._firewall = devices, networks, firewall

    def attach(self, spec: InstanceSpec, vif: Vif) -> None:
        """Plug an interface in; succeed if it is in place. Raises GuestNotFoundError, NetworkError."""
        view = self._devices.view(spec)
        if all(_find(devices, vif) is not None for devices in view.each()):
            return
        self._networks.ensure(vif.network)
        filtered = replace(spec, vifs=(*_without(spec, vif), vif))
        self._firewall.prepare_instance_filter(filtered)
        try:
            self._devices.plug(spec, view, interface_for(vif).xml(), lambda devices: _find(devices, vif))
        except (HypervisorUnreachableError, DriverTimeoutError):
            raise
        except (HypervisorError, GuestStateError) as exc:
            self._firewall.prepare_instance_filter(replace(spec, vifs=_without(spec, vif)))
            raise NetworkError(f"interface {vif.mac}: {exc}") from exc
        self._firewall.apply_instance_filter(filtered)
        LOG.info("guest %s: interface %s attached on %s", spec.name, vif.mac, vif.bridge)

    def detach(self, spec: InstanceSpec, vif: Vif) -> None:
        """Plug an interface out; succeed if it is not there.

        Raises GuestNotFoundError, and NetworkError when the guest does not let go: it is attached still.
        """
        if all(_find(devices, vif) is None for devices in self._devices.view(spec).each()):
            return
        reason = self._devices.unplug(spec, lambda devices: _find(devices, vif))
        if reason is not None:
            raise NetworkError(f"interface {vif.mac} stays with guest {spec.name}: {reason}")
        self._firewall.prepare_instance_filter(replace(spec, vifs=_without(spec, vif)))
        LOG.info("guest %s: interface %s detached", spec.name, vif.mac)


def _without(spec: InstanceSpec, vif: Vif) -> tuple[Vif, ...]:
    return tuple(one for one in spec.vifs if one.mac.lower() != vif.mac.lower())


def _find(devices: Element, vif: Vif) -> Element | None:
    return next((one for one in devices.findall("interface") if _mac(one) == vif.mac.lower()), None)


def _mac(interface: Element) -> str:
    return str(interface.find("mac").get("address")).lower()
