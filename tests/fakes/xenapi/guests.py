"""The inside of guests: what a VM's owner and its software do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.fakes.xenapi.database import now
from tests.fakes.xenapi.lifecycle import RUNNING, refresh
from tests.fakes.xenapi.power import restart, stop
from tests.fakes.xenapi.registry import Context

if TYPE_CHECKING:
    from tests.fakes.xenapi.pool import Pool


class Guest:
    """One guest. deaf: does not obey. held: devices (VBDs, VIFs) it does not let go of. output: its serial line."""

    def __init__(self, pool: Pool, vm: str) -> None:
        self._pool, self._vm, self._x = pool, vm, Context(pool, pool.master)
        self.deaf = False
        self.held: set[str] = set()
        self.seen: dict[str, str] = {}
        self.output = ""
        self._started = time.monotonic()

    def boot(self) -> None:
        """The domain has just been started."""
        self.seen = dict(self._pool.db.get("VM", self._vm)["xenstore_data"])
        self.output = f"{self._pool.db.get('VM', self._vm)['name_label']} login: "
        self._started = time.monotonic()
        self.deaf, self.held = False, set()
        if self._pool.settings.tools:
            self.install_tools()

    def off(self) -> None:
        """The domain is gone."""
        self.seen = {}

    def age_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def set_deaf(self, deaf: bool = True) -> None:
        """Take no notice of orders to end or to start anew."""
        self.deaf = deaf

    def holds(self, device: str) -> None:
        """Do not let go of a VBD or VIF."""
        self.held.add(device)

    def lets_go(self, device: str) -> None:
        """Let go of it again."""
        self.held.discard(device)

    def xenstore(self) -> dict[str, str]:
        """What it finds below vm-data; empty while it is off."""
        return dict(self.seen)

    def shut_down(self) -> None:
        """Its owner ends it: what actions_after_shutdown says happens."""
        self._end("actions_after_shutdown")

    def reboot(self) -> None:
        """Its owner starts it anew: what actions_after_reboot says happens."""
        self._end("actions_after_reboot")

    def crash(self) -> None:
        """It crashes: what actions_after_crash says happens."""
        self._end("actions_after_crash")

    def _end(self, field: str) -> None:
        db = self._pool.db
        with db.changed:
            vm = db.get("VM", self._vm)
            assert vm["power_state"] == RUNNING, vm["power_state"]
            (restart if "restart" in vm[field] else stop)(self._x, self._vm)
            refresh(db)

    def install_tools(self) -> None:
        """Have PV drivers, which tell of themselves."""
        db = self._pool.db
        with db.changed:
            version = {"major": "7", "minor": "30", "micro": "0", "build": "1"}
            facts = {"os_version": {"name": "Debian 12"}, "PV_drivers_version": version, "PV_drivers_detected": True,
                     "live": True, "last_updated": now(), "can_use_hotplug_vbd": "yes", "can_use_hotplug_vif": "yes",
                     "PV_drivers_up_to_date": True,
                     "other": {"feature-shutdown": "1", "feature-suspend": "1", "feature-reboot": "1"}}  # fmt: skip
            self.remove_tools()
            db.update("VM", self._vm, guest_metrics=db.create("VM_guest_metrics", facts))
            refresh(db)

    def remove_tools(self) -> None:
        """Have no PV drivers any more."""
        db = self._pool.db
        with db.changed:
            metrics = db.get("VM", self._vm)["guest_metrics"]
            if db.has("VM_guest_metrics", metrics):
                db.destroy("VM_guest_metrics", metrics)
            db.update("VM", self._vm, guest_metrics="OpaqueRef:NULL")
            refresh(db)
