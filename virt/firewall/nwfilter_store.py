"""Filters as they are to be, put into libvirt."""

from __future__ import annotations

from dataclasses import replace

from virt.errors import FirewallError, GuestStateError, HypervisorError, HypervisorUnreachableError
from virt.firewall.base import Drift, FilterStore
from virt.firewall.nwfilter_filters import provider_filter, static_filters
from virt.firewall.nwfilter_xml import Filter, parse, rule, uuid_of


class NamedFilters:
    """libvirt's filters, defined only where they differ. Raises FirewallError in libvirt's words."""

    def __init__(self, store: FilterStore) -> None:
        self._store, self._has_static = store, False

    def ensure_static(self) -> None:
        """Have the filters that are the same for all guests; looked at once in the life of a daemon."""
        if self._has_static:
            return
        for wanted in static_filters():
            self.put(wanted)
        provider = provider_filter(())
        if self._store.xml(provider.name) is None:
            self.put(provider)
        self._has_static = True

    def put(self, wanted: Filter) -> None:
        """Have this filter; guests that use it follow before this returns, each at one stroke."""
        before = self._store.xml(wanted.name)
        if before is None or not wanted.same_as(parse(before)):
            self._define(wanted, before)

    def renew(self, wanted: Filter) -> None:
        """Have libvirt make this filter's rules in the kernel anew, although nothing about it changed."""
        before = self._store.xml(wanted.name)
        nonce = rule("continue", "out", 1000, "mac", srcmacaddr="02:00:00:00:00:00")
        self._define(replace(wanted, rules=(*wanted.rules, nonce)), before)
        self.put(wanted)

    def drop(self, name: str) -> None:
        """Have no such filter; FirewallError while a running guest needs it."""
        try:
            self._store.undefine(name)
        except HypervisorUnreachableError:
            raise
        except (HypervisorError, GuestStateError) as exc:
            raise FirewallError(f"filter {name}: {exc}") from exc

    def drift(self, wanted: Filter, guest: str | None = None) -> Drift | None:
        """How libvirt's filter of this name differs; None when it does not."""
        there = self._store.xml(wanted.name)
        if there is None:
            return Drift(what=f"filter {wanted.name}", problem="is missing", guest=guest)
        if wanted.same_as(parse(there)):
            return None
        return Drift(what=f"filter {wanted.name}", problem="is not what the rules say", guest=guest, opened=True)

    def _define(self, wanted: Filter, before: str | None) -> None:
        try:
            self._store.define(wanted.xml(uuid_of(before) if before else None))
            there = self._store.xml(wanted.name)
            if there is None or not wanted.same_as(parse(there)):
                # libvirt leaves out what it does not understand, and a rule that has lost a condition matches more
                self._store.define(before) if before else self._store.undefine(wanted.name)
                raise FirewallError(f"filter {wanted.name}: libvirt made something else of it")
        except HypervisorUnreachableError:
            raise
        except (HypervisorError, GuestStateError) as exc:
            raise FirewallError(f"filter {wanted.name}: {exc}") from exc
