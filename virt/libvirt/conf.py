"""Options of the libvirt driver."""

from __future__ import annotations

from oslo_config import cfg

TYPES = ("auto", "kvm", "qemu")
MACHINES = ("pc", "q35")

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("libvirt_type", default="auto", choices=TYPES,
               help="Kind of guests. auto: kvm where a test run shows that it works, else qemu (emulation)."),
    cfg.StrOpt("libvirt_uri", default="", help="Where libvirt is; empty: qemu:///system."),
    cfg.FloatOpt("libvirt_call_timeout", default=30.0, min=0.1,
                 help="Seconds that libvirt may take to answer a question about a guest."),
    cfg.FloatOpt("libvirt_connect_timeout", default=10.0, min=0.1, help="Seconds that connecting to libvirt may take."),
    cfg.IntOpt("libvirt_max_calls", default=32, min=1, help="Calls to libvirt at a time."),
    cfg.IntOpt("libvirt_max_stuck_calls", default=32, min=1,
               help="Calls to libvirt that may hang for good before new ones are refused."),
    cfg.StrOpt("libvirt_machine", default="pc", choices=MACHINES,
               help="Machine of new guests; an image's property hw_machine_type overrides it."),
    cfg.StrOpt("libvirt_cpu_mode", default="", choices=["", "host-model", "host-passthrough", "maximum"],
               help="CPU that guests see. Empty: host-model under kvm, the hypervisor's default under qemu."),
    cfg.BoolOpt("force_config_drive", default=True,
                help="Give every guest a config drive; otherwise only those for which there is a key, user data, a "
                     "file, metadata or a password to hand over."),
    cfg.FloatOpt("guest_agent_timeout", default=30.0, min=1.0,
                 help="Seconds that the agent in a guest may take to do what it was asked."),
    cfg.FloatOpt("device_unplug_timeout", default=60.0, min=1.0,
                 help="Seconds that a guest may take to let go of a volume or an interface."),
    cfg.BoolOpt("start_guests_on_host_boot", default=False, help="Have libvirt start guests when the host boots."),
    cfg.BoolOpt("vnc_enabled", default=True, help="Give guests a screen that is reached by VNC."),
    cfg.StrOpt("vncserver_host", default="127.0.0.1",
               help="Address that guests' VNC servers listen on. Loopback only: a proxy is what users talk to."),
    cfg.StrOpt("console_address", default="127.0.0.1",
               help="Address at which consoles are opened to whoever has the one-time token: the one that a console "
                    "proxy reaches this host by."),
    cfg.FloatOpt("vnc_token_ttl", default=300.0, min=1.0, help="Seconds that a console's token can be used within."),
    cfg.StrOpt("vnc_keymap", default="en-us", help="Keyboard of guests' screens."),
]  # fmt: skip
