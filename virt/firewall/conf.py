"""Options of packet filtering."""

from __future__ import annotations

from oslo_config import cfg

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("firewall_driver", default="noop",
               help="noop (packets are not filtered), nwfilter, iptables, nwfilter+iptables (both), or a dotted path."),
    cfg.BoolOpt("allow_project_net_traffic", default=False,
                help="Let every machine of a guest's own network in, whatever its security groups say. 2011.2 did."),
    cfg.StrOpt("vpn_image_id", default="",
               help="Id of the image of VPN gateways: guests of it forward for others, so the addresses in what they "
                    "send are not checked. Empty: there are none."),
    cfg.FloatOpt("nwfilter_timeout", default=300.0, min=1.0,
                 help="Seconds that libvirt may take to change a filter: it changes guests that use it one by one."),
    cfg.StrOpt("iptables_variant", default="", choices=["", "nft", "legacy"],
               help="Which iptables the iptables firewall uses; empty: what this host's `iptables` is."),
    cfg.IntOpt("iptables_mark_bit", default=25, min=0, max=31,
               help="Bit of the packet mark, 0 to 31, by which a bridge knows what iptables has admitted to "
                    "a guest. Nothing else on the host may use it."),
    cfg.IntOpt("iptables_lock_timeout", default=10, min=1,
               help="Seconds that one attempt waits for another program that holds iptables' lock; there are three."),
    cfg.IntOpt("iptables_max_members", default=65536, min=1,
               help="Addresses of one family that the members of one security group may have together."),
]  # fmt: skip
