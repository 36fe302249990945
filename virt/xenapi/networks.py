"""Which network of the pool a network of ours is, and interfaces on it that cannot speak for others."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

from virt.errors import NetworkError
from virt.spec import Network, Vif
from virt.xenapi.helper import HelperBase, Record


class Networks(HelperBase):
    """Networks of a pool, by bridge or name."""

    def find(self, network: Network) -> str:
        """The network whose bridge or name is `network.bridge`, else the one that is named by its label.

        Raises NetworkError when there is none, or a name has several.
        """
        records: dict[str, Record] = self.call("network.get_all_records")
        for names, facts in ((network.bridge, ("bridge", "name_label")), (network.label, ("name_label",))):
            found = {ref: record for ref, record in records.items() if names in {record[fact] for fact in facts}}
            if len(found) > 1:
                uuids = ", ".join(sorted(record["uuid"] for record in found.values()))
                raise NetworkError(f"network {network.label}: {len(found)} networks of the pool are called {names!r}: "
                                   f"{uuids}")  # fmt: skip
            if found:
                return next(iter(found))
        raise NetworkError(
            f"network {network.label}: the pool has no network of bridge or name {network.bridge!r}, nor of that label"
        )


def addresses_of(vif: Vif) -> tuple[list[str], list[str]]:
    """What an interface may call itself: IPv4, and IPv6 with the link-local address that neighbours know it by."""
    v6 = [str(one.ip) for one in vif.addresses_v6]
    return [str(one.ip) for one in vif.addresses], [*v6, link_local(vif.mac)] if v6 else []


def link_local(mac: str) -> str:
    """The IPv6 link-local address that a MAC address makes (RFC 4291, modified EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]))


def vif_record(vm: str, network: str, vif: Vif, device: str) -> dict[str, Any]:
    """An interface that is let through with its own MAC and addresses alone."""
    v4, v6 = addresses_of(vif)
    return {
        "VM": vm, "network": network, "device": device, "MAC": vif.mac, "MTU": "1500", "other_config": {},
        "qos_algorithm_type": "", "qos_algorithm_params": {}, "locking_mode": "locked", "ipv4_allowed": v4,
        "ipv6_allowed": v6,
    }  # fmt: skip
