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
    *NETWORK_OPTS,
]  # fmt: skip
