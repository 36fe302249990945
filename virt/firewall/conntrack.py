"""Ends what the kernel's connection tracking knows of addresses that change hands.

It knows addresses, not guests: who was connected to a guest would pass to the next guest of its address, whatever the
rules of that one say. An entry is a guest's when the first packet came from it, or when answers do: a connection to a
guest, be it to another address that is translated to its own, is one whose answers the guest sends.

Every look goes through the whole table, thousands of buckets when it is empty: so there is one for all addresses that
wait, and one more for each of those that something is known of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from virt.errors import DriverConfigError, FirewallError, ProcessError
from virt.execute import Execute, run
from virt.firewall.iptables_turns import Turns
from virt.firewall.rules import Address, link_local
from virt.spec import InstanceSpec

_NOBODY = "100::1"  # of the prefix that is for nobody, RFC 6666
_TIMEOUT_S = 60.0


class Connections:
    """The connections that one host's kernel knows."""

    def __init__(self, execute: Execute = run) -> None:
        self._execute = execute
        self._turns: Turns[frozenset[Address]] = Turns(self._end)

    def demand_tool(self) -> None:
        """DriverConfigError when there is no conntrack of 1.4.7 or later, or the kernel does not let it."""
        try:
            self._delete([_NOBODY])
        except ProcessError as exc:
            raise DriverConfigError(f"connections cannot be ended (conntrack 1.4.7 or later is needed): {exc}") from exc

    def forget(self, addresses: Iterable[Address]) -> None:
        """End every connection of these addresses, and no other; succeeds when there is none.

        One command for all that are forgotten at once, and a second one when any of them has connections; none without
        addresses. Raises FirewallError, in conntrack's own words.
        """
        wanted = frozenset(addresses)
        if wanted:
            self._turns.take(wanted)

    def _end(self, batch: Sequence[frozenset[Address]]) -> None:
        addresses = sorted(map(str, frozenset().union(*batch)))
        try:
            listing = self._execute(["conntrack", "-L"], timeout_s=_TIMEOUT_S)
            if known := [one for one in addresses if f" src={one} " in listing]:
                self._delete(known)
        except ProcessError as exc:
            raise FirewallError(f"connections of {', '.join(addresses)} cannot be ended: {exc}") from exc

    def _delete(self, addresses: Iterable[str]) -> None:
        lines = [f"-D {end} {one}\n" for one in addresses for end in ("--orig-src", "--reply-src")]
        # by itself, -D fails where there is nothing to delete; from a file it does not
        self._execute(["conntrack", "--load-file", "-"], timeout_s=_TIMEOUT_S, stdin="".join(lines))


def addresses_of(spec: InstanceSpec) -> frozenset[Address]:
    """Every address that a guest sends from."""
    found: set[Address] = set()
    for vif in spec.vifs:
        found |= {address.ip for address in vif.addresses} | {address.ip for address in vif.addresses_v6}
        if vif.addresses_v6:
            found.add(link_local(vif.mac))
    return frozenset(found)
