"""The chains that hold for all guests: where their packets are found, and where they end."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from virt.firewall import iptables_names as names
from virt.firewall.iptables_names import ADMIT, BRIDGED, COMMON, DROP, HOST, LOCAL, PROVIDER, TOP
from virt.firewall.iptables_rules import marking
from virt.firewall.rules import NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, ROUTER_ADVERTISEMENT

BROADCAST, ALL_NODES = "255.255.255.255/32", "ff02::1/128"


def chains(family: int, mark: int) -> dict[str, tuple[str, ...]]:
    """The static chains of one family. `mark` is the bit of the packet mark that says that a packet was admitted."""
    return {
        TOP: (_unmarking(mark), *_bridged(mark)),
        LOCAL: (_unmarking(mark), *_by_the_host(family), *_by_address(family), _undecided(mark)),
        BRIDGED: (*_by_device(), f"-j {DROP}"),
        COMMON: (*_common(family), marking(mark)),
        HOST: (f"-j {PROVIDER}", marking(mark)),
        DROP: ("-j DROP",),
        ADMIT: (marking(mark), "-j ACCEPT"),
    }


def _unmarking(mark: int) -> str:
    """Nobody has admitted a packet that has only just come."""
    return f"-j MARK --set-xmark 0x0/{mark:#x}"


def _undecided(mark: int) -> str:
    """What comes back marked from a guest's chain, which lets nothing go undecided unless somebody cut its end off."""
    return f"-m mark --mark {mark:#x}/{mark:#x} -j DROP"


def _bridged(mark: int) -> list[str]:
    """What one port of a bridge sends to another: known by the port it leaves by. The rest is for LOCAL."""
    return [
        f"-m physdev --physdev-out {names.TAP_PREFIX}+ --physdev-is-bridged -g {BRIDGED}",
        f"-m physdev --physdev-is-bridged -j {names.OTHER_DEVICES}",
        _undecided(mark),
        f"-m physdev ! --physdev-is-bridged -j {LOCAL}",
    ]


def _by_the_host(family: int) -> list[str]:
    """This host's own broadcasts of a DHCP answer or a route; the bridge's table says for which taps they are."""
    if family == 4:
        return [f"-d {BROADCAST} -p udp -m udp --sport 67 --dport 68 -g {HOST}"]
    return [f"-d {ALL_NODES} -p ipv6-icmp -m icmp6 --icmpv6-type {ROUTER_ADVERTISEMENT} -g {HOST}"]


def _by_address(family: int) -> list[str]:
    """What this host sends or routes: known by its destination, found by the destination's last four bits."""
    zero, mask = (IPv4Address(0), IPv4Address(15)) if family == 4 else (IPv6Address(0), IPv6Address(15))
    return [f"-d {zero + int(digit, 16)}/{mask} -j {chain}" for digit, chain in names.BY_ADDRESS.items()]


def _by_device() -> list[str]:
    return [
        f"-m physdev --physdev-out {names.TAP_PREFIX}{digit}+ --physdev-is-bridged -j {chain}"
        for digit, chain in names.BY_DEVICE.items()
    ]


def _common(family: int) -> tuple[str, ...]:
    neighbours = (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT) if family == 6 else ()
    return (
        *(f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j {ADMIT}" for kind in neighbours),
        "-m conntrack --ctstate INVALID -j DROP",
        f"-m conntrack --ctstate RELATED,ESTABLISHED -j {ADMIT}",
        f"-j {PROVIDER}",
    )
