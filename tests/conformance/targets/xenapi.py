"""The xenapi driver on a simulated pool of two hosts: one with a storage of its own, both with a shared one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from oslo_config import cfg

from tests.builders import a_guest, a_network, a_vif, a_volume, an_image
from tests.conformance.harness import Target, World
from tests.fakes.xenapi import Pool
from virt.driver import CAPABILITIES
from virt.spec import InstanceSpec, Vif, VolumeAttachment
from virt.xenapi.driver import XenAPIDriver

HAS = {
    "Pausable", "Suspendable", "Rescuable", "Resizable", "LiveMigratable", "Snapshots", "AttachesVolumes",
    "BootsFromVolumes",
    "AttachesNics", "HasConsole", "ReportsStats", "EmitsEvents",
}  # fmt: skip


def driver_on(pool: Pool, folder: Path, host: str, **flags: Any) -> XenAPIDriver:
    """A driver for one host of a simulated pool, as its configuration makes it."""
    defaults = {
        "xenapi_connection_url": pool.url,
        "xenapi_connection_password": pool.password,
        "xenapi_ca_file": str(pool.ca_file),
        "xenapi_host": host,
        "xenapi_task_poll_interval": 0.01,
        "device_unplug_timeout": 1.0,
        "xenapi_vhd_coalesce_poll_interval": 0.01,
        "instances_path": str(folder / f"instances-{host}"),
        "images_path": str(folder),
        "cluster_id": "conformance",
    }
    conf = cfg.ConfigOpts()
    conf([], project="micronova")
    conf.register_opts([cfg.StrOpt("state_path", default=str(folder)), cfg.StrOpt("firewall_driver", default="noop")])
    XenAPIDriver.register(conf)
    for name, value in (defaults | flags).items():
        conf.set_override(name, value)
    return XenAPIDriver.from_conf(conf)


class XenWorld(World):
    """Hosts `alpha` and `beta` of one pool, each with its daemon."""

    this_host, other_host = "here", "other"

    def __init__(self, folder: Path, *, is_shared: bool) -> None:
        self.pool, self.folder = Pool(folder / "pool"), folder
        self.pool.start()
        image = folder / "image.raw"
        image.write_bytes(b"\xeb\x3c\x90boot" + bytes(1024**2))
        self._image = an_image(location=str(image))
        srs = [{} if is_shared else {"xenapi_sr": f"local-{name}"} for name in ("alpha", "beta")]
        self.driver: XenAPIDriver = driver_on(self.pool, folder, "alpha", **srs[0])
        self._other = driver_on(self.pool, folder, "beta", **srs[1])
        self.driver.init_host(self.this_host)
        self._other.init_host(self.other_host)

    def close(self) -> None:
        self.driver.close()
        self._other.close()
        self.pool.stop()

    def second(self) -> XenAPIDriver:
        return self._other

    def make_guest(self, **changes: Any) -> InstanceSpec:
        return a_guest(**({"image": self._image, "vifs": (self.make_vif(),), "memory_mb": 256} | changes))

    def broken_guest(self, **changes: Any) -> InstanceSpec:
        return self.make_guest(**({"image": an_image(location=str(self.folder / "nowhere"))} | changes))

    def make_volume(self, **changes: Any) -> VolumeAttachment:
        volume = a_volume(**changes)
        iqn = f"iqn.2010-10.org.openstack:{volume.serial}"
        self.pool.add_target("192.0.2.1", iqn, {"1": 64 << 20})
        return replace(volume, connection={"protocol": "iscsi", "source": f"192.0.2.1:3260,1 {iqn} 1"})

    def make_vif(self) -> Vif:
        return a_vif(network=a_network(bridge="xenbr0"))

    def make_foreign_guest(self) -> str:
        self.pool.add_vm("somebody-elses", affinity=self.pool.hosts[0].ref)
        return "somebody-elses"

    def leftovers(self, spec: InstanceSpec) -> list[str]:
        """Everything stamped as this host's, and what runs here; volumes' repositories that it is connected to."""
        here = self.pool.hosts[0]
        found = [f"VM {r['name_label']}" for r in self.pool.records("VM").values() if self._is_left(r, spec, here)]
        found += [f"VDI {r['name_label']}" for r in self.pool.records("VDI").values() if self._is_left(r, spec, here)]
        found += [path.name for path in Path(self.folder / "instances-alpha").glob(f"{spec.name}*")]
        return found

    @staticmethod
    def _is_left(record: Any, spec: InstanceSpec, here: Any) -> bool:
        config = record["other_config"]
        is_ours = config.get("nova-uuid") == spec.uuid or spec.uuid in record["name_label"]
        return is_ours and here.uuid == config.get("nova-host", here.uuid)

    def shut_down_inside(self, name: str) -> None:
        self.pool.guest(self._vm(name)).shut_down()

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        with self.pool.cut_off():
            yield

    def lose_events(self) -> None:
        self.pool.expire_sessions()

    def make_deaf(self, name: str) -> None:
        self.pool.guest(self._vm(name)).set_deaf()

    def contents(self, name: str) -> str:
        vbds = [self.pool.record("VBD", vbd) for vbd in self.pool.record("VM", self._vm(name))["VBDs"]]
        root = next(vbd["VDI"] for vbd in vbds if vbd["userdevice"] == "0")
        return self.pool.disks.read(self.pool.record("VDI", root)["uuid"], 0, 4 << 20).hex()

    def disk(self, vbd: str) -> Any:
        """The record of what is plugged in somewhere."""
        return self.pool.record("VBD", vbd)

    def _vm(self, name: str) -> str:
        (ref,) = self.pool.find("VM", name_label=name)
        return ref


@contextmanager
def build(*, is_shared: bool) -> Iterator[XenWorld]:
    """A fresh pool."""
    with tempfile.TemporaryDirectory() as folder:
        world = XenWorld(Path(folder), is_shared=is_shared)
        try:
            yield world
        finally:
            world.close()


TARGETS = [
    Target(
        name="xenapi",
        build=partial(build, is_shared=True),
        missing=frozenset(capability.__name__ for capability in CAPABILITIES) - HAS,
        unable_methods=frozenset({"block_stats", "interface_stats"}),
        missing_helpers=frozenset({"wait_for_agent", "leave_files", "share_storage"}),
    )
]
