"""What the iptables firewall's things are called on a host.

Every name begins with `nova-`. A chain's name has at most 28 characters, a set's at most 31.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_address

from virt.firewall.rules import Network

TAP_PREFIX = "tap2163e"
"""How the taps of 2011.2's MAC range 02:16:3e begin. What begins so and is not known gets nothing through."""

DIGITS = "0123456789abcdef"

TOP = "nova-filter-top"
LOCAL = "nova-compute-local"
BRIDGED = "nova-compute-bridged"
COMMON = "nova-compute-common"
HOST = "nova-compute-host"
PROVIDER = "nova-compute-provider"
ADMIT = "nova-compute-admit"
DROP = "nova-compute-sg-fallback"
OTHER_DEVICES = "nova-compute-dev-other"

_DEVICES, _ADDRESSES = "nova-compute-dev-", "nova-compute-ip-"
_BY_DEVICE = "-m physdev --physdev-out "
_INSTANCE, _GROUP, _NETWORK = "nova-compute-inst-", "nova-compute-sg-", "nova-compute-net-"
_NETWORK_DIGITS = 11

BY_DEVICE = {digit: f"{_DEVICES}{digit}" for digit in DIGITS}
BY_ADDRESS = {digit: f"{_ADDRESSES}{digit}" for digit in DIGITS}
DISPATCHING = frozenset({*BY_DEVICE.values(), *BY_ADDRESS.values(), OTHER_DEVICES})
"""Chains that all guests share: each tap has a line of its own in them."""

JUMPS = {"FORWARD": f"-j {TOP}", "OUTPUT": f"-j {LOCAL}"}
"""How packets come to our chains out of the kernel's: what the host sends itself passes no bridge port on its way."""
BUILTIN = tuple(JUMPS)
OUR_JUMPS = frozenset(JUMPS.values())


def tap_chain(dev: str) -> str:
    """The chain of one tap."""
    return f"nova-compute-{dev}"


def is_by_device(line: str) -> bool:
    """True for a line that knows a tap by the bridge's port."""
    return line.startswith(_BY_DEVICE)


def tap_in(line: str) -> str:
    """The tap that such a line is for."""
    return line.removeprefix(_BY_DEVICE).split(maxsplit=1)[0]


def network(one: Network) -> str:
    """A network as nft and ipset print it: of one address, it is that."""
    return str(one.network_address) if one.prefixlen == one.max_prefixlen else str(one)


def instance_chain(instance_id: int) -> str:
    """The chain of one guest."""
    return f"{_INSTANCE}{instance_id}"


def group_chain(group_id: int) -> str:
    """The chain of one security group, which every guest in it shares."""
    return f"{_GROUP}{group_id}"


def network_chain(lines: Sequence[str]) -> str:
    """The chain of these rules, which every guest whose network tells it the same shares; other rules, another name."""
    return f"{_NETWORK}{sha256(chr(10).join(lines).encode()).hexdigest()[:_NETWORK_DIGITS]}"


def is_shared_chain(chain: str) -> bool:
    """True for the chain of a security group or of a network."""
    return _number(chain, _GROUP) is not None or chain.startswith(_NETWORK)


def is_ours(name: str) -> bool:
    """True for our chains and sets."""
    return name.startswith("nova-compute-") or name == TOP or is_set(name)


def device_dispatch(dev: str) -> str:
    """The shared chain that finds this tap."""
    if dev.startswith(TAP_PREFIX) and dev[len(TAP_PREFIX) : len(TAP_PREFIX) + 1] in BY_DEVICE:
        return BY_DEVICE[dev[len(TAP_PREFIX)]]
    return OTHER_DEVICES


def address_dispatch(address: str) -> str:
    """The shared chain that finds this address: by its last four bits."""
    return BY_ADDRESS[f"{int(ip_address(address)) & 15:x}"]


def member_set(group_id: int, family: int) -> str:
    """The set of a group's members of one family."""
    return f"nova-g{family}-{group_id}"


def rule_set(group_id: int, family: int) -> str:
    """The set of what a group's ordinary rules of one family let in."""
    return f"nova-r{family}-{group_id}"


def family_of(set_name: str) -> int:
    """The family of a set."""
    return int(set_name[len("nova-g")])


def is_member_set(name: str) -> bool:
    """True for a set of members; not for what others left behind."""
    return any(_number(name, f"nova-g{family}-") is not None for family in (4, 6))


def is_rule_set(name: str) -> bool:
    """True for a set of what ordinary rules let in."""
    return any(_number(name, f"nova-r{family}-") is not None for family in (4, 6))


def is_set(name: str) -> bool:
    """True for our sets."""
    return is_member_set(name) or is_rule_set(name)


def _number(name: str, prefix: str) -> int | None:
    digits = name.removeprefix(prefix)
    return int(digits) if digits != name and digits.isascii() and digits.isdecimal() else None
