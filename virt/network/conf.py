"""Options of guests' networks."""

from __future__ import annotations

from oslo_config import cfg

FLAT, FLATDHCP, VLAN = "flat", "flatdhcp", "vlan"
ALIASES = {
    "nova.network.manager.FlatManager": FLAT,
    "nova.network.manager.FlatDHCPManager": FLATDHCP,
    "nova.network.manager.VlanManager": VLAN,
}

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("network_manager", default=FLAT, choices=[FLAT, FLATDHCP, VLAN, *ALIASES],
               help="How hosts serve networks. flat: a bridge; guests read their addresses on the config drive. "
                    "flatdhcp: a bridge, and on every host a DHCP server for its own guests. vlan: the same, and each "
                    "network has a VLAN of its own. 2011.2's class names mean the same."),
    cfg.StrOpt("network_routing", default="nat", choices=["none", "routed", "nat"],
               help="What hosts are to the networks of flatdhcp and vlan. nat: the gateway of their own guests, whose "
                    "packets leave under the host's address. routed: the gateway, and addresses are left as they are. "
                    "none: the gateway is something else."),
    cfg.StrOpt("routing_source_ip", default="",
               help="Address under which guests' packets leave by nat. Empty: that of the interface they leave by."),
    cfg.BoolOpt("use_ipv6", default=False,
                help="Tell guests their IPv6 address and router, on networks of flatdhcp and vlan that have a cidr_v6 "
                     "and whose gateway is the host."),
    cfg.StrOpt("dhcp_domain", default="novalocal", help="Domain that DHCP tells guests."),
    cfg.IntOpt("dhcp_lease_time", default=86400, min=120, help="Seconds of a DHCP lease. Guests keep their address."),
    cfg.IntOpt("network_mtu", default=0, min=0, max=65535, help="MTU that DHCP tells guests; 0: none."),
    cfg.StrOpt("networks_path", default="",
               help="Directory of what this host keeps of its guests' networks while it is up; every user must be able "
                    "to pass through. Empty: below /run/micronova, named after state_path and host."),
]  # fmt: skip
