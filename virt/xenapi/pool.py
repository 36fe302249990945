"""Where a daemon works: its host in the pool, the storage and the template of its guests.

Hosts are told apart by what their daemons write on them: `nova-compute` names a host's daemon, `nova-sr` its storage.
"""

from __future__ import annotations

from dataclasses import dataclass

from virt.errors import DriverConfigError, HypervisorError
from virt.xenapi.errors import GoneError
from virt.xenapi.helper import HelperBase, Record
from virt.xenapi.session import NULL, Session

_DAEMON, _SR = "nova-compute", "nova-sr"


class AmbiguousNameError(HypervisorError):
    """A name that several objects of the pool have, or none."""

    expected = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHost:
    """A host of the pool. daemon: the nova-compute that serves it; sr: the uuid of its guests' storage (or empty)."""

    ref: str
    uuid: str
    name: str
    address: str
    hostname: str
    daemon: str
    sr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The host that a daemon serves, and where the disks of its guests go."""

    host: PoolHost
    sr: str
    sr_uuid: str


class Pool(HelperBase):
    """Looks things up in a pool, and says what is wrong with a name. cluster: this installation's name."""

    def __init__(self, session: Session, cluster: str) -> None:
        super().__init__(session)
        self._cluster = cluster

    def settle(self, daemon: str, *, host: str, sr: str, template: str) -> Place:
        """Find what the options name, and sign the host as this daemon's. Raises DriverConfigError."""
        mine = self._my_host(host)
        if mine.daemon not in {"", daemon}:
            raise DriverConfigError(
                f"xenapi_host: host {mine.name} of the pool is served by nova-compute {mine.daemon}; if that is no "
                f"more, remove {self._key(_DAEMON)} from its other_config"
            )
        try:
            self.template(template)
        except AmbiguousNameError as exc:
            raise DriverConfigError(f"xenapi_template: {exc}") from exc
        sr_ref = self._my_sr(sr, mine)
        sr_uuid = str(self.call("SR.get_uuid", sr_ref))
        config = self.call("host.get_other_config", mine.ref)
        for key, value in ((self._key(_DAEMON), daemon), (self._key(_SR), sr_uuid)):
            if config.get(key) != value:  # alone, since xapi keeps facts of its own there
                self.call("host.remove_from_other_config", mine.ref, key)
                self.call("host.add_to_other_config", mine.ref, key, value)
        return Place(host=mine, sr=sr_ref, sr_uuid=sr_uuid)

    def hosts(self) -> list[PoolHost]:
        """Every host of the pool; the session learns where else to look for the master."""
        found = [
            PoolHost(
                ref=ref, uuid=record["uuid"], name=record["name_label"], address=record["address"],
                hostname=record["hostname"], daemon=record["other_config"].get(self._key(_DAEMON), ""),
                sr=record["other_config"].get(self._key(_SR), ""),
            )
            for ref, record in self.call("host.get_all_records").items()
        ]  # fmt: skip
        self.session.know(host.address for host in found)
        return found

    def host_called(self, name: str) -> PoolHost | None:
        """The host of a daemon, by the daemon's name or the host's own name, address or uuid."""
        hosts = self.hosts()
        for facts in (
            [host for host in hosts if host.daemon == name],
            [host for host in hosts if name in {host.uuid, host.address, host.hostname, host.name}],
        ):
            if len(facts) == 1:
                return facts[0]
        return None

    def template(self, name: str) -> str:
        """The template that guests are cloned from.

        Raises AmbiguousNameError; DriverConfigError when it has disks, or is not for HVM guests.
        """
        found = {
            ref: record
            for ref, record in self._called("VM", name).items()
            if record["is_a_template"] and not record["is_a_snapshot"]
        }
        ref = _the_one(found, "template", name)
        disks = [vbd for vbd in found[ref]["VBDs"] if self.call("VBD.get_type", vbd) == "Disk"]
        if not found[ref]["HVM_boot_policy"]:
            raise DriverConfigError(f"xenapi_template: {name} is for paravirtual guests, ours are HVM")
        if disks:
            raise DriverConfigError(f"xenapi_template: {name} has {len(disks)} disks, guests bring their own")
        return ref

    def sr_called(self, name: str) -> str:
        """A storage repository by name or uuid. Raises AmbiguousNameError."""
        return _the_one(self._called("SR", name), "storage", name)

    def is_plugged(self, sr: str, host: str) -> bool:
        """True if a host has a storage repository at hand."""
        return any(pbd["host"] == host and pbd["currently_attached"] for pbd in self.pbds(sr).values())

    def pbds(self, sr: str) -> dict[str, Record]:
        """The connections of hosts to a storage repository."""
        return {ref: self.call("PBD.get_record", ref) for ref in self.call("SR.get_PBDs", sr)}

    def _my_host(self, name: str) -> PoolHost:
        hosts = self.hosts()
        names = ", ".join(sorted(host.name for host in hosts))
        if not name:
            if len(hosts) != 1:
                raise DriverConfigError(
                    f"xenapi_host: the pool has {len(hosts)} hosts ({names}), say which one to serve"
                )
            return hosts[0]
        found = [host for host in hosts if name in {host.name, host.uuid, host.hostname, host.address}]
        if len(found) != 1:
            raise DriverConfigError(
                f"xenapi_host = {name}: {len(found)} hosts of the pool are called so, it has {names}"
            )
        return found[0]

    def _my_sr(self, name: str, host: PoolHost) -> str:
        if name:
            try:
                ref = self.sr_called(name)
            except AmbiguousNameError as exc:
                raise DriverConfigError(f"xenapi_sr: {exc}") from exc
        else:
            (pool,) = self.call("pool.get_all_records").values()
            ref = str(pool["default_SR"])
            if ref in {NULL, ""}:
                raise DriverConfigError("xenapi_sr: the pool has no default storage repository, name one")
        if not self.is_plugged(ref, host.ref):
            raise DriverConfigError(f"xenapi_sr: host {host.name} is not connected to {name or 'the default storage'}")
        return ref

    def _called(self, kind: str, name: str) -> dict[str, Record]:
        try:
            refs = [self.call(f"{kind}.get_by_uuid", name)]
        except GoneError:
            refs = self.call(f"{kind}.get_by_name_label", name)
        return {ref: self.call(f"{kind}.get_record", ref) for ref in refs}

    def _key(self, name: str) -> str:
        return f"{name}:{self._cluster}"


def _the_one(found: dict[str, Record], what: str, name: str) -> str:
    if len(found) == 1:
        return next(iter(found))
    if not found:
        raise AmbiguousNameError(f"the pool has no {what} called {name!r}")
    uuids = ", ".join(sorted(record["uuid"] for record in found.values()))
    raise AmbiguousNameError(f"{len(found)} of the pool are called {name!r}, name the {what} by its uuid: {uuids}")
