"""Move running guests to another host of the pool, with their disks where the hosts do not share them.

xapi does it in one step: until then the guest is the source's, from then on the destination's, which is also what
`Guests` goes by. The stamps only follow.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from typing import Any

from virt.driver import Progress
from virt.errors import (
    DriverTimeoutError,
    GuestNotFoundError,
    GuestStateError,
    HypervisorError,
    IncompatibleCpuError,
    VirtError,
)
from virt.power_state import Power
from virt.spec import InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.build import Builder
from virt.xenapi.errors import LostReplyError
from virt.xenapi.guests import Guest, power_of
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.pool import Place, Pool, PoolHost
from virt.xenapi.resources import cpu_words
from virt.xenapi.session import Session

LOG = logging.getLogger(__name__)

_POLL_S = 0.5


class Migrator(HelperBase):
    """Both ends of live migrations, for one host. move_s: seconds that one may take."""

    def __init__(
        self, session: Session, builder: Builder, pool: Pool, place: Place, *, move_s: float = 14400.0
    ) -> None:
        super().__init__(session)
        self._builder, self._pool, self._place, self._move_s = builder, pool, place, move_s

    def prepare(self, spec: InstanceSpec) -> None:
        """On the destination: see that the networks are there, and connect to the volumes."""
        for vif in spec.vifs:
            self._builder.networks.find(vif.network)
        self._builder.volumes.plugs(spec)

    def live_migration(self, spec: InstanceSpec, dest: str, progress: Progress) -> None:
        """Move a guest that runs here; on an error it runs here still, or DriverTimeoutError says that nobody knows.

        Raises GuestNotFoundError, GuestStateError, HypervisorError.
        """
        guest = self._builder.guests.find(spec)
        host = self._pool.host_called(dest)
        if host is None or host.ref == self._place.host.ref:
            raise HypervisorError(f"guest {spec.name}: no other host of the pool is called {dest}")
        if guest.power is not Power.RUNNING:
            raise GuestStateError(f"guest {spec.name}: is {guest.power.name}, so it cannot be migrated")
        progress("checking")
        away = self._disks_to_move(guest, host)
        try:
            if away:
                self._send(guest, host, away, progress)
            else:
                progress("migrating")
                self.run("VM.pool_migrate", guest.ref, host.ref, {"live": "true"}, timeout_s=self._move_s,
                         progress=progress)  # fmt: skip
        except HypervisorError as exc:
            if not self._arrived(guest, host, spec, exc):
                raise
        LOG.info("guest %s: migrated to %s", spec.name, dest)
        try:
            self._hand_over(guest.ref, spec, host.uuid)
        except VirtError as exc:  # it has moved, whatever its stamps say
            LOG.warning("guest %s: the stamps of its migration are left to its clean-up: %s", spec.name, exc)

    def cleanup(self, spec: InstanceSpec) -> None:
        """Let go of what this host held for a guest that does not run here; see that its stamps say where it is."""
        with suppress(GuestNotFoundError):
            self._builder.guests.find(spec)
            return
        hosts = {host.ref: host.uuid for host in self._pool.hosts()}
        for ref, record in self._builder.guests.now()[1].items():
            home = hosts.get(record["resident_on"])
            is_it = self._builder.guests.is_ours(record, spec) and not record["is_a_snapshot"]
            if is_it and home and record["other_config"].get(stamps.HOST) != home:
                self._hand_over(ref, spec, home)
        self._builder.disks.sweep_all(spec)
        for volume in spec.volumes:
            self._builder.volumes.disconnect(volume)

    def compare_cpu(self, own: str, other: str) -> None:
        """IncompatibleCpuError unless a guest of a host with CPU `other` can run on one with `own` (JSON)."""
        mine: dict[str, Any] = json.loads(own)
        try:
            theirs: dict[str, Any] = json.loads(other)
            words = cpu_words(theirs.get("features", ()))
        except (ValueError, AttributeError, TypeError) as exc:
            raise IncompatibleCpuError(f"cannot compare CPUs: {other[:80]!r} describes none") from exc
        for fact in ("arch", "vendor"):
            if theirs.get(fact) != mine[fact]:
                raise IncompatibleCpuError(f"a CPU of {fact} {theirs.get(fact)} cannot be had on {mine[fact]}")
        have = cpu_words(mine["features"])
        lacking = [number for number, word in enumerate(words) if word & ~(have[number] if number < len(have) else 0)]
        if lacking:
            raise IncompatibleCpuError(f"this host's CPU lacks features of feature word {', '.join(map(str, lacking))}")

    def _disks_to_move(self, guest: Guest, host: PoolHost) -> dict[str, str]:
        """The disks that the destination does not reach, each with the storage of the destination's guests."""
        away, reached = {}, {}
        for vbd in self._builder.wiring.vbds(guest.ref).values():
            if vbd["empty"]:  # a drive that somebody gave it
                continue
            sr = str(self.call("VDI.get_SR", vbd["VDI"]))
            if sr not in reached:
                reached[sr] = self._pool.is_plugged(sr, host.ref)
            if not reached[sr]:
                away[vbd["VDI"]] = self._storage_of(host)
        return away

    def _storage_of(self, host: PoolHost) -> str:
        if not host.sr:
            raise HypervisorError(f"host {host.name}: no nova-compute has said where its guests' disks go")
        return str(self.call("SR.get_by_uuid", host.sr))

    def _send(self, guest: Guest, host: PoolHost, disks: dict[str, str], progress: Progress) -> None:
        receiver = self.call("host.migrate_receive", host.ref, self._management_network(host), {})
        self.call("VM.assert_can_migrate", guest.ref, receiver, True, disks, {}, {})
        progress("migrating with disks")
        self.run("VM.migrate_send", guest.ref, receiver, True, disks, {}, {}, timeout_s=self._move_s,
                 progress=progress)  # fmt: skip

    def _management_network(self, host: PoolHost) -> str:
        pifs: dict[str, Record] = self.call("PIF.get_all_records")
        for pif in pifs.values():
            if pif["host"] == host.ref and pif["management"]:
                return str(pif["network"])
        raise HypervisorError(f"host {host.name}: has no management interface to migrate over")

    def _arrived(self, guest: Guest, host: PoolHost, spec: InstanceSpec, cause: HypervisorError) -> bool:
        """Whether the guest is there after all, once nothing is done to it any more.

        Raises DriverTimeoutError when the pool does not tell, or says that it runs neither there nor here.
        """
        deadline = time.monotonic() + self._move_s
        while True:
            try:
                record = self.call("VM.get_record", guest.ref)
            except HypervisorError as exc:
                raise LostReplyError(f"guest {spec.name}: {cause}; where it is, nobody knows: {exc}") from cause
            if record["resident_on"] == host.ref:
                return True
            if not record["current_operations"] or time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        if record["resident_on"] != self._place.host.ref:
            raise DriverTimeoutError(f"guest {spec.name}: {cause}; it is {power_of(record).name} now") from cause
        return False

    def _hand_over(self, vm: str, spec: InstanceSpec, host: str) -> None:
        """Have the stamps of a guest and its disks say that they are another host's; let go of its volumes here.

        The VM's own comes last: while it is the old one, a clean-up does all of it again.
        """
        for vdi in self._builder.own_disks(Guest(vm, self.call("VM.get_record", vm))):
            facts = self.call("VDI.get_other_config", vdi)
            self.call("VDI.set_other_config", vdi, facts | {stamps.HOST: host})
        config = self.call("VM.get_other_config", vm)
        self.call("VM.set_other_config", vm, config | {stamps.HOST: host})
        for volume in spec.volumes:
            self._builder.volumes.disconnect(volume)
