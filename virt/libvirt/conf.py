"""Options of the libvirt driver."""

from __future__ import annotations

from oslo_config import cfg

DISK_CACHES = ("", "none", "writethrough", "writeback", "directsync", "unsafe")
TYPES = ("auto", "kvm", "qemu", "xen", "lxc", "uml")
CPU_MODES = ("", "none", "host-model", "host-passthrough", "maximum", "custom")
MACHINES = ("pc", "q35")

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("libvirt_type", default="auto", choices=TYPES,
               help="Kind of guests. auto: kvm where a test run shows that it works, else qemu (emulation). lxc: "
                    "containers. xen and uml are documents only: nothing here could run them."),
    cfg.StrOpt("libvirt_uri", default="",
               help="Where libvirt is; empty: qemu:///system, or xen:///system, lxc:///system, uml:///system by "
                    "libvirt_type."),
    cfg.FloatOpt("libvirt_call_timeout", default=30.0, min=0.1,
                 help="Seconds that libvirt may take to answer a question about a guest."),
    cfg.FloatOpt("libvirt_connect_timeout", default=10.0, min=0.1, help="Seconds that connecting to libvirt may take."),
    cfg.IntOpt("libvirt_max_calls", default=32, min=1, help="Calls to libvirt at a time."),
    cfg.IntOpt("libvirt_max_stuck_calls", default=32, min=1,
               help="Calls to libvirt that may hang for good before new ones are refused."),
    cfg.StrOpt("libvirt_machine", default="pc", choices=MACHINES,
               help="Machine of new guests; an image's property hw_machine_type overrides it."),
    cfg.StrOpt("libvirt_cpu_mode", default="", choices=CPU_MODES,
               help="CPU that guests see. Empty: host-model under kvm, the hypervisor's default (none) under qemu."),
    cfg.StrOpt("libvirt_cpu_model", default="", help="Name of the CPU that guests see, for the mode custom."),
    cfg.StrOpt("libvirt_firmware", default="bios", choices=["bios", "uefi"],
               help="Firmware of guests; an image's property hw_firmware_type overrides it."),
    cfg.StrOpt("libvirt_disk_cache", default="", choices=DISK_CACHES,
               help="How the host caches guests' disks in files. Empty: QEMU's default (writeback). none: what a live "
                    "migration on NFS needs. unsafe: a guest's disk does not outlive a crash of the host."),
    cfg.IntOpt("lxc_max_files", default=1_000_000, min=1,
               help="Files that the archive of a container's root may have."),
    cfg.FloatOpt("guest_agent_timeout", default=30.0, min=1.0,
                 help="Seconds that the agent in a guest may take to do what it was asked."),
    cfg.StrOpt("live_migration_uri", default="qemu+tls://%s/system",
               help="How other hosts' libvirt is reached, for every kind of move; %s stands for their address."),
    cfg.BoolOpt("live_migration_tls", default=True,
                help="Encrypt a live migration's memory and disks; needs certificates for QEMU (default_tls_x509)."),
    cfg.BoolOpt("live_migration_tunnelled", default=False,
                help="Send memory through libvirt's own connection; not possible where disks have to be copied."),
    cfg.IntOpt("live_migration_bandwidth", default=0, min=0, help="MiB/s that a live migration may use; 0: no limit."),
    cfg.IntOpt("live_migration_downtime", default=500, min=1,
               help="Milliseconds that a guest may stand still while it changes hosts."),
    cfg.FloatOpt("live_migration_timeout", default=1800.0, min=1.0,
                 help="Seconds after which a live migration that does not end is ended as "
                      "live_migration_timeout_action says."),
    cfg.StrOpt("live_migration_timeout_action", default="abort", choices=["abort", "force_complete"],
               help="abort: the guest stays. force_complete: it goes at any price: by post-copy where that is allowed, "
                    "else however long it stands still."),
    cfg.BoolOpt("live_migration_auto_converge", default=True,
                help="Slow a guest down that writes memory faster than it can be sent."),
    cfg.BoolOpt("live_migration_post_copy", default=False,
                help="Allow a guest to go on at its destination before all its memory is there; it is lost if the "
                     "network fails meanwhile."),
    cfg.BoolOpt("live_migration_unsafe", default=False,
                help="Migrate on shared storage that libvirt does not recognise as safe for the disks' cache mode."),
    cfg.BoolOpt("vnc_enabled", default=True, help="Give guests a screen that is reached by VNC."),
    cfg.StrOpt("vncserver_host", default="127.0.0.1",
               help="Address that guests' VNC servers listen on. Loopback only: a proxy is what users talk to."),
    cfg.StrOpt("vnc_keymap", default="en-us", help="Keyboard of guests' screens."),
]  # fmt: skip
