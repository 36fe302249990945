"""What hosts do for a network: the flags' part of its spec."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt.network.conf import ALIASES, FLAT, VLAN
from virt.spec import Network

LINK_LOCAL = IPv4Address("169.254.169.253")
"""Where DHCP answers from on a host that is no gateway: it needs an address, and every host may have the same one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkMode:
    """manager: flat, flatdhcp or vlan; routing: none, routed or nat."""

    manager: str = FLAT
    routing: str = "nat"
    use_ipv6: bool = False

    @classmethod
    def from_conf(cls, conf: ConfigOpts) -> Self:
        """The mode that the flags ask for."""
        manager = ALIASES.get(conf.network_manager, conf.network_manager)
        return cls(manager=manager, routing=conf.network_routing, use_ipv6=conf.use_ipv6)

    @property
    def serves(self) -> bool:
        """True when hosts do more for a network than to have its bridge."""
        return self.manager != FLAT

    @property
    def routes(self) -> bool:
        """True when hosts are the gateways of networks: what they route gets to guests without coming by a port."""
        return self.serves and self.routing != "none"

    @property
    def demands_vlan(self) -> bool:
        """True when every network needs a VLAN."""
        return self.manager == VLAN

    def serve(self, network: Network) -> Network:
        """The network, with what hosts do for it."""
        if not self.serves:
            return network
        if self.routing == "none" or network.gateway is None:
            return replace(network, dhcp_server=LINK_LOCAL)
        advertised = self.use_ipv6 and network.cidr_v6 is not None and network.gateway_v6 is not None
        return replace(network, dhcp_server=network.gateway, routing=self.routing, advertised=advertised)
