"""libvirt's network filters: the store that virt.firewall.nwfilter keeps its filters in."""

from __future__ import annotations

from typing import Any

from lxml import etree

from virt.errors import GuestNotFoundError
from virt.libvirt.host import AFFECT_LIVE, Connection, Host, filter_at, filter_of, lookup

_LANE = "(network filters)"


class NWFilters:
    """A FilterStore on one libvirt. change_timeout_s: for changes, which libvirt makes guest by guest."""

    def __init__(self, host: Host, *, change_timeout_s: float = 300.0) -> None:
        self._host, self._change_timeout_s = host, change_timeout_s

    def define(self, xml: str) -> None:
        """Make a filter, or put this one in the place of its namesake; running guests follow at once."""
        self._host.call(_LANE, lambda connection: connection.nwfilterDefineXML(xml), self._change_timeout_s)

    def undefine(self, name: str) -> None:
        """Remove a filter; succeed if there is none. HypervisorError while a running guest refers to it."""

        def work(connection: Connection) -> None:
            found = filter_of(connection, name)
            if found is not None:
                found.undefine()

        self._host.call(_LANE, work, self._change_timeout_s)

    def xml(self, name: str) -> str | None:
        """A filter as libvirt has it; None when there is none."""

        def work(connection: Connection) -> str | None:
            found = filter_of(connection, name)
            return None if found is None else str(found.XMLDesc(0))

        return self._host.call(_LANE, work)

    def names(self) -> frozenset[str]:
        """Every filter there is."""
        found = self._host.call(_LANE, lambda connection: [one.name() for one in connection.listAllNWFilters(0)])
        return frozenset(found)

    def bindings(self) -> dict[str, str]:
        """The filter that libvirt filters each tap by, by the tap's name."""

        def work(connection: Connection) -> dict[str, str]:
            return {one.portDev(): one.filterName() for one in connection.listAllNWFilterBindings(0)}

        return self._host.call(_LANE, work)

    def bound(self, dev: str) -> str | None:
        """The filter that libvirt filters this tap by; None when it filters no such tap."""
        return self._host.call(_LANE, lambda connection: filter_at(connection, dev))

    def bind(self, guest: str, dev: str, name: str) -> None:
        """Have libvirt filter this tap of a running guest by this filter; GuestNotFoundError when it has none such."""

        def work(connection: Connection) -> None:
            domain = lookup(connection.lookupByName, guest)
            element = None if domain is None else _interface(domain.XMLDesc(0), dev)
            if domain is None or element is None:
                raise GuestNotFoundError(f"guest {guest}: has no interface {dev}")
            for old in element.findall("filterref"):
                element.remove(old)
            etree.SubElement(element, "filterref", filter=name)
            domain.updateDeviceFlags(etree.tostring(element, encoding="unicode"), AFFECT_LIVE)

        self._host.call(guest, work, self._change_timeout_s)


def _interface(domain_xml: str, dev: str) -> Any | None:
    root = etree.fromstring(domain_xml.encode(), etree.XMLParser(resolve_entities=False))
    return next(
        (one for one in root.findall("devices/interface") if one.find(f"target[@dev='{dev}']") is not None), None
    )
