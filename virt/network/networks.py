"""Networks of a host, from their first guest to their last: made, served, looked after, taken away."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Self

from oslo_config.cfg import ConfigOpts

from virt import execute
from virt.errors import NetworkError
from virt.execute import Execute
from virt.network.bridges import Bridges
from virt.network.dhcp import DhcpOptions
from virt.network.dnsmasq import Dnsmasq
from virt.network.ledger import Ledger
from virt.network.mode import NetworkMode
from virt.network.nat import Gateway
from virt.spec import InstanceSpec, Network, Vif

LOG = logging.getLogger(__name__)

_RUN = Path("/run/micronova")


class Networks:
    """The networks that guests of this host use; changes on one bridge come one after another."""

    def __init__(
        self, bridges: Bridges, path: Path, options: DhcpOptions | None = None, *, source_ip: str = "",
        demands_vlan: bool = False, run: Execute = execute.run,
    ) -> None:  # fmt: skip
        """path: a directory for what is kept about them, which dnsmasq's user must be able to reach."""
        inside = ["nsenter", f"--net={bridges.netns}", "--"] if bridges.netns else []
        self._bridges, self._path, self._ledger, self._demands_vlan = bridges, path, Ledger(path), demands_vlan
        self._dnsmasq = Dnsmasq(options or DhcpOptions(), run, inside)
        self._gateway = Gateway(run, inside, source_ip)
        self._locks: dict[str, threading.Lock] = {}

    @classmethod
    def from_conf(cls, conf: ConfigOpts, netns: str | None = None) -> Self:
        """As the options of virt/conf.py say."""
        where = f"{conf.state_path}\0{conf.host if 'host' in conf else ''}"
        own = _RUN / hashlib.sha256(where.encode()).hexdigest()[:12]
        return cls(
            Bridges(conf.vlan_interface, netns, conf.cluster_id),
            Path(conf.networks_path) if conf.networks_path else own,
            DhcpOptions(domain=conf.dhcp_domain, lease_s=conf.dhcp_lease_time, mtu=conf.network_mtu),
            source_ip=conf.routing_source_ip,
            demands_vlan=NetworkMode.from_conf(conf).demands_vlan,
        )

    def plug(self, spec: InstanceSpec) -> None:
        """Have all that a guest's interfaces need, before it is started. Raises NetworkError."""
        for vif in spec.vifs:
            self.plug_vif(spec, vif)

    def plug_vif(self, spec: InstanceSpec, vif: Vif) -> None:
        """Have all that one interface of a guest needs, before it is plugged in. Raises NetworkError.

        On an error the interface is still entered: `unplug` or `unplug_vif` takes back what was made.
        """
        if self._demands_vlan and vif.network.vlan is None:
            raise NetworkError(f"network {vif.network.label}: has no VLAN, and network_manager is vlan")
        with self._lock(vif.network):
            self._ledger.enter(spec, vif)
            self._serve(vif.network)
            self._dnsmasq.read_hosts(self._ledger.folder(vif.network.id))

    def unplug(self, spec: InstanceSpec) -> None:
        """A guest is gone from this host, taps and all: so is what was there for it, and for nobody else.

        Succeeds if it is; what cannot be taken away now is tried again by `tend`.
        """
        for network in self._ledger.networks():
            self._leave(network, spec.uuid)

    def unplug_vif(self, spec: InstanceSpec, vif: Vif) -> None:
        """The same for one interface."""
        self._leave(vif.network, spec.uuid, vif.mac)

    def restore(self, uuids: Collection[str]) -> None:
        """Have everything in place for the guests that there are, and nothing for those that are gone.

        To be called before any guest is made. What cannot be had is logged, and tried again by `tend`.
        """
        for network in self._ledger.networks():
            for uuid in self._ledger.guests(network.id) - set(uuids):
                LOG.info("network %s: guest %s is not here any more", network.label, uuid)
                self._leave(network, uuid)
            self._look_after(network)

    def tend(self) -> None:
        """Have everything in place that ended or was flushed, and take away what could not be taken away before."""
        for network in self._ledger.networks():
            self._look_after(network)

    def _lock(self, network: Network) -> threading.Lock:
        return self._locks.setdefault(network.bridge, threading.Lock())

    def _serve(self, network: Network) -> None:
        """Everything that a network needs here; its lock is held."""
        folder = self._ledger.folder(network.id)
        self._bridges.ensure(network, lambda thing: self._ledger.claim(network.id, thing))
        if network.dhcp_server is None:
            return
        _demand_reachable(folder.hosts)
        is_ours = f"link {network.bridge}" in self._ledger.made(network.id)
        self._gateway.ensure(network, folder.path / "rules.nft", self._bridges.mac_of(network) if is_ours else None)
        self._dnsmasq.ensure(network, folder)

    def _leave(self, network: Network, uuid: str, mac: str = "") -> None:
        with self._lock(network):
            left = self._ledger.leave(network.id, uuid, mac)
            try:
                self._dnsmasq.forget(network, self._ledger.folder(network.id), left)
            except NetworkError as exc:
                LOG.warning("%s; tried again later", exc)
            for one in (network, *self._sharers(network)):
                self._remove_if_unused(one)

    def _look_after(self, network: Network) -> None:
        with self._lock(network):
            if not self._ledger.guests(network.id):
                self._remove_if_unused(network)
                return
            try:
                self._serve(network)
            except NetworkError as exc:
                LOG.error("%s; tried again later", exc)

    def _remove_if_unused(self, network: Network) -> None:
        """Take away what was made for a network that no guest uses; its lock is held."""
        folder = self._ledger.folder(network.id)
        if not folder.path.exists() or self._ledger.guests(network.id):
            return
        try:
            self._dnsmasq.stop(network, folder)
            self._gateway.remove(network, folder.path / "rules.nft")
            if any(self._ledger.guests(other.id) for other in self._sharers(network)):
                return
            if self._bridges.remove(network, self._ledger.made(network.id)):
                self._ledger.forget(network.id)
                LOG.info("network %s: its last guest has left this host", network.label)
        except NetworkError as exc:
            LOG.warning("%s; tried again later", exc)

    def _sharers(self, network: Network) -> list[Network]:
        """The other networks on the same bridge, as only flat ones can be."""
        return [one for one in self._ledger.networks() if one.bridge == network.bridge and one.id != network.id]


def _demand_reachable(path: Path) -> None:
    """Raise NetworkError unless any user can get to `path`."""
    closed = [folder for folder in (path, *path.parents) if not folder.stat().st_mode & 0o001]
    if closed:
        raise NetworkError(f"networks_path: dnsmasq's user cannot get to {path} through {closed[-1]}")
