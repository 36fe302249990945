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
from virt.errors import GuestNotFoundError, GuestStateError, HypervisorError
from virt.power_state import Power
from virt.spec import InstanceSpec
from virt.xenapi import stamps
from virt.xenapi.build import Builder
from virt.xenapi.errors import LostReplyError
from virt.xenapi.guests import Guest
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
        except LostReplyError:
            if not self._arrived(guest, host):
                raise
        self._hand_over(guest.ref, spec, host.uuid)
        LOG.info("guest %s: migrated to %s", spec.name, dest)

    def cleanup(self, spec: InstanceSpec) -> None:
        """Let go of what this host held for a guest that does not run here; see that its stamps say where it is."""
        with suppress(GuestNotFoundError):
            self._builder.guests.find(spec)
            return
        hosts = {host.ref: host.uuid for host in self._pool.hosts()}
        for guest in self._builder.guests.labelled(spec.name):
            config = guest.record["other_config"]
            home = hosts.get(guest.record["resident_on"])
            if self._builder.guests.is_ours(guest.record, spec) and home and config.get(stamps.HOST) != home:
                self._hand_over(guest.ref, spec, home)
        self._builder.disks.sweep_all(spec)
        for volume in spec.volumes:
            self._builder.volumes.disconnect(volume)

    def compare_cpu(self, own: str, other: str) -> None:
        """HypervisorError unless a guest of a host with CPU `other` can run on one with `own` (JSON)."""
        mine: dict[str, Any] = json.loads(own)
        try:
            theirs: dict[str, Any] = json.loads(other)
            words = cpu_words(theirs.get("features", ()))
        except (ValueError, AttributeError, TypeError) as exc:
            raise HypervisorError(f"cannot compare CPUs: {other[:80]!r} describes none") from exc
        for fact in ("arch", "vendor"):
            if theirs.get(fact) != mine[fact]:
                raise HypervisorError(f"a CPU of {fact} {theirs.get(fact)} cannot be had on {mine[fact]}")
        have = cpu_words(mine["features"])
        lacking = [number for number, word in enumerate(words) if word & ~(have[number] if number < len(have) else 0)]
        if lacking:
            raise HypervisorError(f"this host's CPU lacks features of feature word {', '.join(map(str, lacking))}")

    def _disks_to_move(self, guest: Guest, host: PoolHost) -> dict[str, str]:
        """The disks that the destination does not reach, each with the storage of the destination's guests."""
        away, reached = {}, {}
        for vbd in self._builder.wiring.vbds(guest.ref).values():
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

    def _arrived(self, guest: Guest, host: PoolHost) -> bool:
        """Where the guest is after all, once nothing is done to it any more."""
        deadline = time.monotonic() + self._move_s
        while True:
            record = self.call("VM.get_record", guest.ref)
            if record["resident_on"] == host.ref:
                return True
            if not record["current_operations"] or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)

    def _hand_over(self, vm: str, spec: InstanceSpec, host: str) -> None:
        """Have the stamps of a guest and its disks say that they are another host's; let go of its volumes here."""
        config = self.call("VM.get_other_config", vm)
        self.call("VM.set_other_config", vm, config | {stamps.HOST: host})
        guest = Guest(vm, self.call("VM.get_record", vm))
        for vdi in self._builder.own_disks(guest):
            facts = self.call("VDI.get_other_config", vdi)
            self.call("VDI.set_other_config", vdi, facts | {stamps.HOST: host})
        for volume in spec.volumes:
            self._builder.volumes.disconnect(volume)
