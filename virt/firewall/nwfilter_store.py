"""Filters as they are to be, put into libvirt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from virt.errors import FirewallError, GuestStateError, HypervisorError, HypervisorUnreachableError, VirtError
from virt.execute import Execute
from virt.firewall.base import Drift, FilterStore
from virt.firewall.nwfilter_audit import interfaces
from virt.firewall.nwfilter_filters import provider_filter, static_filters
from virt.firewall.nwfilter_xml import Filter, parse, rule, uuid_of

LOG = logging.getLogger(__name__)
TURN = Filter(name="nova-turn")


class NamedFilters:
    """libvirt's filters, defined only where they differ. Raises FirewallError in libvirt's words.

    settle: called before a filter takes the place of another, for libvirt then makes anew the rules of guests that use
    it.
    """

    def __init__(self, store: FilterStore, settle: Callable[[], None] = lambda: None) -> None:
        self._store, self._settle, self._has_static = store, settle, False

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
        if before is not None and wanted.same_as(parse(before)):
            return
        if before is not None:
            self._settle()
        self._define(wanted, before)

    def await_others(self) -> None:
        """Return when libvirt is done with changes that were asked for before, be it by a daemon that is dead.

        libvirt changes one filter after the other: so this is a change, of a filter that nothing refers to.
        """
        self._define(TURN, self._store.xml(TURN.name))

    def renew(self, wanted: Filter) -> None:
        """Have libvirt make this filter's rules in the kernel anew, although nothing about it changed."""
        before = self._store.xml(wanted.name)
        nonce = rule("continue", "out", 1000, "mac", srcmacaddr="02:00:00:00:00:00")
        self._define(replace(wanted, rules=(*wanted.rules, nonce)), before)
        self._define(wanted, self._store.xml(wanted.name))

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


def have_bound(store: FilterStore, execute: Execute, guest: str, dev: str, wanted: str) -> bool:
    """Have libvirt filter a running guest's tap by this filter; False when there is no such tap.

    Raises FirewallError when libvirt filters it by another one all the same.
    """
    if store.bound(dev) == wanted:
        return True
    if dev not in interfaces(execute):
        return False
    store.bind(guest, dev, wanted)
    bound = store.bound(dev)
    if bound != wanted:
        raise FirewallError(f"guest {guest}: {dev} is filtered by {bound or 'nothing'}, not by {wanted}")
    return True


def attempt(what: str, work: Callable[[], object]) -> None:
    """Mend one thing; what cannot be mended is told, and stays as it is: the others are mended all the same."""
    try:
        work()
    except HypervisorUnreachableError:
        raise
    except VirtError as exc:
        LOG.error("packet filters: %s cannot be mended: %s", what, exc)
