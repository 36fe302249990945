"""Options of the host side that every driver shares."""

from __future__ import annotations

from oslo_config import cfg

from virt.network.conf import OPTS as NETWORK_OPTS

OPTS: list[cfg.Opt] = [
    cfg.StrOpt("cluster_id", default="micronova",
               help="Name of this installation, stamped on its guests. Guests with another stamp, or none, are never "
                    "touched."),
    cfg.StrOpt("instances_path", default="$state_path/instances",
               help="Directory of guests' disks and of the image cache; one file system."),
    cfg.StrOpt("images_path", default="$state_path/images",
               help="Directory that image locations on this host's own disks must lie in."),
    cfg.IntOpt("max_image_gb", default=100, min=1, help="Largest image file that is fetched, GiB."),
    cfg.IntOpt("max_kernel_mb", default=512, min=1, help="Largest kernel or ramdisk that is fetched, MiB."),
    cfg.FloatOpt("image_fetch_timeout", default=3600.0, min=1.0, help="Seconds that fetching one image may take."),
    cfg.StrOpt("volume_manager", default="file",
               help="Who makes new volumes. file: sparse files in volumes_path. Or a dotted path to a class of "
                    "virt.volume_manager's kind."),
    cfg.StrOpt("volumes_path", default="$state_path/volumes",
               help="Directory of the volumes that we make: of one host, or on storage that every host has there."),
    cfg.StrOpt("volume_name_template", default="volume-%08x", help="A volume's name where it is made, by id."),
    cfg.BoolOpt("use_cow_images", default=True,
                help="Make root disks as overlays on the cached image; otherwise each guest gets a full copy."),
    cfg.StrOpt("qemu_img", default="qemu-img", help="The qemu-img program."),
    cfg.StrOpt("vlan_interface", default="eth0", help="Interface that carries VLANs when a network names none."),
    cfg.BoolOpt("force_config_drive", default=True,
                help="Give every guest a config drive; otherwise only those for which there is a key, user data, a "
                     "file, metadata or a password to hand over."),
    cfg.StrOpt("console_address", default="127.0.0.1",
               help="Address at which consoles are opened to whoever has the one-time token: the one that a console "
                    "proxy reaches this host by."),
    cfg.FloatOpt("vnc_token_ttl", default=300.0, min=1.0, help="Seconds that a console's token can be used within."),
    cfg.FloatOpt("device_unplug_timeout", default=60.0, min=1.0,
                 help="Seconds that a guest may take to let go of a volume or an interface."),
    *NETWORK_OPTS,
]  # fmt: skip
