"""libvirt's filters for what guests may call themselves, and nothing else: beside another firewall that knows groups.

They are rules of the bridge only (ebtables): libvirt makes none for iptables of them, so none of its verdicts comes
before, or instead of, the other firewall's. A packet passes if both let it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import partial

from virt.execute import Execute, run
from virt.firewall import nwfilter_audit as auditing
from virt.firewall.backstop import Backstop
from virt.firewall.base import Drift, FilterStore
from virt.firewall.guard import TapGuard
from virt.firewall.nwfilter_filters import basic_filter, basic_filters, tap_name
from virt.firewall.nwfilter_store import NamedFilters, attempt, have_bound
from virt.firewall.nwfilter_xml import Filter
from virt.firewall.rules import InstanceRules, instance_rules
from virt.spec import InstanceSpec


class BasicFilters:
    """The filter of each interface of the guests of one host.

    It opens nothing: without it the other firewall decides alone. Raises FirewallError in libvirt's words, and as
    FilterStore.
    """

    def __init__(self, filters: FilterStore, *, vpn_image_id: str = "", execute: Execute = run) -> None:
        self._named = NamedFilters(filters)
        self._filters, self._execute, self._vpn_image_id = filters, execute, vpn_image_id
        self._known: dict[str, frozenset[str]] = {}
        self._has_static = self._has_retired_guard = False
        self._lock = threading.RLock()

    def ensure(self) -> None:
        """Have the filters that those of interfaces refer to; looked at once in the life of a daemon."""
        with self._lock:
            if not self._has_static:
                for wanted in basic_filters():
                    self._named.put(wanted)
                self._has_static = True

    def prepare(self, spec: InstanceSpec) -> None:
        """Have the filter of each interface of a guest, and none of those that it has no more."""
        wanted = self._wanted([spec])
        with self._lock:
            self.ensure()
            for one in wanted.values():
                self._named.put(one)
            for name in self._known.get(spec.name, frozenset()) - set(wanted):
                self._named.drop(name)
            self._known[spec.name] = frozenset(wanted)

    def apply(self, spec: InstanceSpec) -> None:
        """Have libvirt filter the guest's taps that are there; they may have been started without."""
        for vif in spec.vifs:
            have_bound(self._filters, self._execute, spec.name, vif.dev, tap_name(spec.name, vif.mac))

    def remove(self, spec: InstanceSpec) -> None:
        """Remove the filters of a guest that is gone; succeed if they are."""
        with self._lock:
            for name in sorted({*self._wanted([spec]), *self._known.get(spec.name, ())}):
                self._named.drop(name)
            self._known.pop(spec.name, None)

    def exist(self, spec: InstanceSpec) -> bool:
        """True when each interface of the guest has its filter."""
        return all(self._filters.xml(name) is not None for name in self._wanted([spec]))

    def audit(self, specs: Sequence[InstanceSpec]) -> list[Drift]:
        """Where libvirt and the kernel differ from what these guests, which are all of this host, need."""
        with self._lock:
            guest_of = {tap_name(spec.name, vif.mac): spec.name for spec in specs for vif in spec.vifs}
            wanted = self._wanted(specs)
            static = (self._named.drift(one) for one in basic_filters())
            own = (self._named.drift(one, guest_of[name]) for name, one in wanted.items())
            left = auditing.leftovers(self._filters.names(), wanted)
            return [
                *(one for one in (*static, *own) if one is not None),
                *(Drift(what=f"filter {name}", problem="is of no guest here") for name in left),
                *(fault.drift for fault in self._faults(specs)),
            ]

    def repair(self, specs: Sequence[InstanceSpec]) -> list[Drift]:
        """Make it what these guests need; says what was found. What cannot be mended is told, and the rest is."""
        with self._lock:
            found, wanted = self.audit(specs), self._wanted(specs)
            for one in (*basic_filters(), *wanted.values()):
                attempt(f"filter {one.name}", partial(self._named.put, one))
            for fault in self._faults(specs):
                if fault.kind is auditing.Kind.UNBOUND:
                    work = partial(have_bound, self._filters, self._execute, fault.guest, fault.dev, fault.filter)
                    attempt(fault.drift.what, work)
                else:
                    attempt(fault.drift.what, partial(self._named.renew, wanted[fault.filter]))
            for name in auditing.leftovers(self._filters.names(), wanted):
                attempt(f"filter {name}, which no guest here needs,", partial(self._named.drop, name))
            self._known = {spec.name: frozenset(self._wanted([spec])) for spec in specs}
            return found

    def retire_guard(self) -> None:
        """Remove what libvirt's filters need where they are alone, and would shut taps that nobody opens any more.

        Once in the life of a daemon, when the other firewall filters every guest.
        """
        if not self._has_retired_guard:
            TapGuard(self._execute).remove()
            Backstop(self._execute).remove()
            self._has_retired_guard = True

    def _faults(self, specs: Iterable[InstanceSpec]) -> list[auditing.Fault]:
        """Taps that are there and that libvirt, or the kernel, does not filter as it is to."""
        there, checked = auditing.interfaces(self._execute), auditing.checked(self._execute)
        bindings = self._filters.bindings()
        found = []
        for spec in specs:
            for vif in (vif for vif in spec.vifs if vif.dev in there):
                name, bound = tap_name(spec.name, vif.mac), bindings.get(vif.dev)
                if bound == name and vif.dev in checked:
                    continue
                kind = auditing.Kind.UNFILTERED if bound == name else auditing.Kind.UNBOUND
                problem = f"libvirt filters it by {bound or 'nothing'}, not by {name}"
                if kind is auditing.Kind.UNFILTERED:
                    problem = "the kernel does not check what it sends by libvirt's rules"
                drift = Drift(what=f"tap {vif.dev}", problem=problem, guest=spec.name, opened=True)
                found.append(auditing.Fault(guest=spec.name, dev=vif.dev, filter=name, kind=kind, drift=drift))
        return found

    def _wanted(self, specs: Iterable[InstanceSpec]) -> dict[str, Filter]:
        every = (self._rules(spec) for spec in specs)
        found = (basic_filter(rules, tap) for rules in every for tap in rules.taps)
        return {one.name: one for one in found}

    def _rules(self, spec: InstanceSpec) -> InstanceRules:
        return instance_rules(spec, vpn_image_id=self._vpn_image_id)
