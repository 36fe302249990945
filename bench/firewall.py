"""What packet filters cost on a host with 10, 100 and 500 filtered guests, each with ten rules of its own.

In a network namespace of its own, so it needs root; without root there are no rows.
"""

from __future__ import annotations

import functools
import itertools
import os
import resource
import secrets
import socket
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Interface

from pyroute2 import netns

from bench.rows import PEER_FIREWALL_ADD_MS, Row
from virt.execute import run
from virt.firewall.iptables import IptablesFirewall
from virt.firewall.iptables_host import FilterHost
from virt.firewall.iptables_ipset import SetSocket
from virt.firewall.iptables_netlink import ElementSocket
from virt.spec import InstanceSpec, Network, Rule, SecurityGroup, Vif

ROUNDS = 31
CROWDS = (10, 100, 500)
MEMBERS = 1000
NEXT, FOLLOWED = 9999, 9
ADDED, REMOVED = "add one", "remove one"
SAME = 1.25
"""How much dearer a guest may be beside 500 than beside 10; nftables checks all rules that there are at each change.

The legacy kernel replaces all of them, so there what adds or takes away rules has no target."""

_joiners = itertools.count()
_NETWORK = Network(id=1, label="bench", bridge="br100", cidr="10.0.0.0/8", gateway=IPv4Address("10.0.0.1"))


def rows() -> Iterator[Row]:
    """CPU of adding, editing and removing one guest, and of one new member of a large group, by both iptables."""
    if os.geteuid() != 0:
        return
    for variant in ("nft", "legacy"):
        measured = _measured(variant)
        for crowd, what in itertools.product(CROWDS, measured[CROWDS[0]]):
            is_target = crowd == CROWDS[-1] and (variant == "nft" or what not in {ADDED, REMOVED})
            yield Row(
                what=f"firewall {crowd} instances x 10 rules: {what}", where=f"iptables-{variant}",
                value=measured[crowd][what], unit="ms",
                at_most=SAME * measured[CROWDS[0]][what] if is_target else None,
                peer=PEER_FIREWALL_ADD_MS if what == ADDED and crowd == CROWDS[-1] else None,
            )  # fmt: skip


def _measured(variant: str) -> dict[int, dict[str, float]]:
    """Milliseconds by crowd and change, crowds in turn: what else the machine does falls on all alike."""
    with ExitStack() as stack:
        firewalls = {crowd: _filtered(stack.enter_context(_network())(variant), crowd) for crowd in CROWDS}
        rounds = [{crowd: _round(firewall) for crowd, firewall in firewalls.items()} for _ in range(ROUNDS)]
    return {
        crowd: {what: statistics.median(one[crowd][what] for one in rounds) for what in rounds[0][crowd]}
        for crowd in CROWDS
    }


def _filtered(host: FilterHost, crowd: int) -> IptablesFirewall:
    firewall = IptablesFirewall(host, mark=1 << 25, max_members=65536)
    firewall.init_host()
    firewall.repair([_guest(number) for number in range(1, crowd + 1)], [])
    return firewall


def _round(firewall: IptablesFirewall) -> dict[str, float]:
    new, other = _guest(NEXT), _guest(NEXT, 5)
    more = (*_members(), str(IPv4Address("10.201.0.0") + next(_joiners)))
    found = {
        ADDED: _ms(lambda: firewall.prepare_instance_filter(new)),
        "edit its group": _ms(lambda: firewall.refresh_security_group_rules([other])),
        f"group of {MEMBERS} members, one joins": _ms(lambda: firewall.refresh_security_group_members(FOLLOWED, more)),
    }
    firewall.refresh_security_group_members(FOLLOWED, _members())
    return found | {REMOVED: _ms(lambda: firewall.unfilter_instance(new))}


def _guest(number: int, first_port: int = 0) -> InstanceSpec:
    """A guest in a group of its own with ten rules; the last follows a large group."""
    rules = [
        Rule(protocol="tcp", from_port=first_port + port, to_port=first_port + port, cidr=f"10.{port}.0.0/16")
        for port in range(1, 10)
    ]
    rules.append(Rule(protocol="udp", from_port=53, to_port=53, group_id=FOLLOWED))
    group = SecurityGroup(id=number, name=f"g{number}", rules=tuple(rules), members={FOLLOWED: _members()})
    mac = f"02:16:3e:{number * 37 % 128:02x}:{number >> 8:02x}:{number & 255:02x}"
    vif = Vif(mac=mac, network=_NETWORK, addresses=(IPv4Interface(IPv4Address("10.0.1.0") + number),))
    return InstanceSpec(
        id=number, uuid=f"8a1f2b3c-0000-4000-8000-{number:012d}", name=f"instance-{number:08x}", display_name="bench",
        hostname="bench", project_id="project", user_id="user", memory_mb=512, vcpus=1, root_gb=1, vifs=(vif,),
        security_groups=(group,),
    )  # fmt: skip


def _members() -> tuple[str, ...]:
    return tuple(str(IPv4Address("10.200.0.0") + one) for one in range(MEMBERS))


def _ms(act: Callable[[], object]) -> float:
    begun = _cpu_s()
    act()
    return (_cpu_s() - begun) * 1000


def _cpu_s() -> float:
    """This process's and its programs', in the kernel as well."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def _network() -> Iterator[Callable[[str], FilterHost]]:
    """A network namespace, as a host of packet filters of either variant."""
    name = f"bench-{secrets.token_hex(4)}"
    run(["ip", "netns", "add", name])

    def execute(cmd: Sequence[str], *, timeout_s: float = 60.0, stdin: str | None = None) -> str:
        return run(["nsenter", f"--net=/run/netns/{name}", "--", *cmd], timeout_s=timeout_s, stdin=stdin)

    def host(variant: str) -> FilterHost:
        make = functools.partial(_within, name)
        elements, sets = ElementSocket(make), SetSocket(make)
        return FilterHost(execute, variant=variant, feed_elements=elements.feed, feed_sets=sets.feed)

    try:
        yield host
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=30)


def _within(name: str, *kind: int) -> socket.socket:
    """A socket in a network namespace: a thread goes there to make it, and ends."""
    made: list[socket.socket] = []

    def go() -> None:
        netns.setns(name)
        made.append(socket.socket(*kind))

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return made[0]
