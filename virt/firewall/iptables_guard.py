"""The table of the bridge that stands between every tap and everything else: pure, nft's text from and to data.

It does what iptables cannot. From a tap it lets pass what bears the tap's own MAC and addresses, ARP included, and no
answer that only a server gives. To a tap it lets pass what iptables has admitted, which it knows by a bit of the packet
mark, and only if it is for that tap. So what never came by our chains gets to no guest: because the host does not show
bridged packets to iptables, because another's rule accepted it first, or because the chains are gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from virt.firewall import iptables_names as names
from virt.firewall.iptables_names import TAP_PREFIX
from virt.firewall.rules import TapRules

TABLE = "micronova"
SETS = {
    "taps": "type ifname;",
    "vpns": "type ifname;",
    "macs": "type ifname . ether_addr;",
    "own4": "type ifname . ipv4_addr;",
    "own6": "type ifname . ipv6_addr;",
    "told": "typeof iifname . @th,64,128;",  # what a neighbour's answer speaks of; this nft has no name for it
    "dhcp": "type ifname . ipv4_addr;",
    "routers": "type ifname . ipv6_addr; flags interval;",
}

Facts = frozenset[tuple[str, str]]
"""What is known of one tap: (set, key) pairs, the key without the tap's name and empty in `taps` and `vpns`."""

Taps = Mapping[str, Facts | None]
_EMPTY: Facts = frozenset()

_SKELETON = """\
add table bridge {table}
{sets}
add chain bridge {table} leave
add chain bridge {table} leave-arp
add chain bridge {table} leave-4
add chain bridge {table} leave-6
add chain bridge {table} enter
add chain bridge {table} enter-admitted
add chain bridge {table} enter-all
add chain bridge {table} from-guests {{ type filter hook prerouting priority -350; policy accept; }}
add chain bridge {table} to-guests {{ type filter hook postrouting priority -350; policy accept; }}
flush table bridge {table}
table bridge {table} {{
  chain from-guests {{
    iifname @taps goto leave
    iifname "{prefix}*" drop
  }}
  chain leave {{
    iifname @vpns accept
    iifname . ether saddr != @macs drop
    ether type arp goto leave-arp
    ether type 0x8035 accept comment "RARP: QEMU says where a guest is"
    ether type ip goto leave-4
    ether type ip6 goto leave-6
    drop
  }}
  chain leave-arp {{
    iifname . arp saddr ether != @macs drop
    iifname . arp saddr ip @own4 accept
    arp saddr ip 0.0.0.0 accept
    drop
  }}
  chain leave-4 {{
    udp sport 67 udp dport 68 drop
    iifname . ip saddr @own4 accept
    ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept
    drop
  }}
  chain leave-6 {{
    udp sport 547 udp dport 546 drop
    icmpv6 type {{ 134, 137 }} drop
    icmpv6 type 136 iifname . @th,64,128 != @told drop
    iifname . ip6 saddr @own6 accept
    ip6 saddr :: icmpv6 type {{ 133, 135, 143 }} accept
    drop
  }}
  chain to-guests {{
    oifname @taps goto enter
    oifname "{prefix}*" drop
  }}
  chain enter {{
    ether type arp accept
    icmpv6 type {{ 135, 136 }} accept
    ether type {{ ip, ip6 }} meta mark & {mark:#x} == {mark:#x} goto enter-admitted
    drop
  }}
  chain enter-admitted {{
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 goto enter-all
    oifname @vpns accept
    oifname . ip daddr @own4 accept
    oifname . ip6 daddr @own6 accept
    drop
  }}
  chain enter-all {{
    udp sport 67 udp dport 68 oifname . ip saddr != @dhcp drop
    icmpv6 type 134 oifname . ip6 saddr != @routers drop
    accept
  }}
}}
"""


def skeleton(mark: int) -> str:
    """What holds for all taps, in one atomic change that touches the facts about none."""
    sets = "\n".join(f"add set bridge {TABLE} {name} {{ {kind} }}" for name, kind in SETS.items())
    return _SKELETON.format(table=TABLE, sets=sets, prefix=TAP_PREFIX, mark=mark)


def facts(tap: TapRules) -> Facts:
    """What the bridge has to know of one tap."""
    found = {("taps", ""), ("macs", tap.mac)}
    found |= {("own4", str(one)) for one in tap.addresses} | {("own6", str(one)) for one in tap.addresses_v6}
    found |= {("told", f"{int(one):#x}") for one in tap.addresses_v6}
    found |= {("dhcp", str(one)) for one in tap.dhcp_servers}
    found |= {("routers", names.network(one)) for one in tap.ra_sources}
    return frozenset(found | ({("vpns", "")} if tap.is_vpn else set()))


def change(before: Taps, after: Taps) -> str:
    """What makes the facts about the taps in `after` what it says, in one atomic change; empty when that is nothing."""
    text = []
    for dev, wanted in sorted(after.items()):
        there, new = before.get(dev) or _EMPTY, wanted or _EMPTY
        text += [_element("delete", dev, *one) for one in sorted(there - new)]
        text += [_element("add", dev, *one) for one in sorted(new - there)]
    return "".join(text)


def narrowed(before: Taps, after: Taps) -> dict[str, Facts]:
    """What may stay as it is until the rest of a change is in place: less than before, and nothing new."""
    return {dev: (before.get(dev) or _EMPTY) & (wanted or _EMPTY) for dev, wanted in after.items()}


def parse(listed: str) -> tuple[list[Any], dict[str, Facts]]:
    """The rules, and the facts by tap, in what `nft -j list table` printed."""
    rules: list[Any] = []
    taps: dict[str, set[tuple[str, str]]] = {}
    for entry in json.loads(listed)["nftables"]:
        for kind, body in entry.items():
            if kind in {"rule", "chain"}:
                rules.append({key: value for key, value in body.items() if key != "handle"})
            elif kind == "set" and body["name"] in SETS:
                for element in body.get("elem", ()):
                    dev, key = _parsed(element)
                    key = f"{int(key, 16):#x}" if body["name"] == "told" else key
                    taps.setdefault(dev, set()).add((body["name"], key))
    return rules, {dev: frozenset(found) for dev, found in taps.items()}


def _element(verb: str, dev: str, name: str, key: str) -> str:
    return f'{verb} element bridge {TABLE} {name} {{ "{dev}"{f" . {key}" if key else ""} }}\n'


def _parsed(element: Any) -> tuple[str, str]:
    if isinstance(element, str):
        return element, ""
    dev, key = element["concat"]
    if isinstance(key, dict):
        key = f"{key['prefix']['addr']}/{key['prefix']['len']}"
    return dev, key
