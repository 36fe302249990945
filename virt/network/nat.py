"""The way out of a network: forwarding, and packets that leave under the host's address.

Each network has nftables tables of its own, named after it, which are put in place and taken away whole. Nobody else's
rules are read or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

from virt.errors import NetworkError, ProcessError
from virt.execute import Execute
from virt.network.bridges import uplink_of
from virt.spec import Network

_TIMEOUT_S = 20.0
_FORWARDING = "net.ipv4.ip_forward"
_FORWARDING_V6 = "net.ipv6.conf.all.forwarding"
_LEARNT = 0x40000  # RTF_ADDRCONF: the route came in a router's advertisement


class Gateway:
    """Makes the host of one network namespace the gateway of networks."""

    def __init__(self, execute: Execute, inside: Sequence[str] = (), source_ip: str = "") -> None:
        """inside: the words before a command that run it in the namespace; source_ip: nat's address, "" any."""
        self._execute, self._inside, self._source_ip = execute, list(inside), source_ip

    def ensure(self, network: Network, file: Path, mac: str | None) -> None:
        """Have packets of the network forwarded; succeed if they are. mac: the bridge's, if it was made here.

        `file` is written. Forwarding stays on for good: nobody can tell who else relies on it. Raises NetworkError.
        """
        try:
            if network.routing != "none":
                self._forward(_FORWARDING)
                if network.advertised:
                    self._forward_v6()
            self._load(file, ruleset(network, mac, self._source_ip))
        except ProcessError as exc:
            raise NetworkError(f"network {network.label}: cannot be routed: {exc}") from exc

    def remove(self, network: Network, file: Path) -> None:
        """Have none of the network's tables; succeed if there is none. Raises NetworkError."""
        try:
            if file.exists():  # it had tables, or may have
                self._load(file, removal(network))
        except ProcessError as exc:
            raise NetworkError(f"network {network.label}: its nft tables stay: {exc}") from exc
        file.unlink(missing_ok=True)

    def _load(self, file: Path, rules: str) -> None:
        file.write_text(rules)
        self._run("nft", "-f", str(file))

    def _forward(self, switch: str) -> None:
        if self._run("sysctl", "-n", switch).strip() != "1":
            self._run("sysctl", "-q", "-w", f"{switch}=1")

    def _forward_v6(self) -> None:
        """Forward IPv6, unless the host would lose its own default route by it."""
        if self._run("sysctl", "-n", _FORWARDING_V6).strip() != "1":
            for device in self._learnt_from():
                if self._run("sysctl", "-n", f"net/ipv6/conf/{device}/accept_ra").strip() != "2":
                    raise NetworkError(
                        f"IPv6 is not forwarded: the host would lose the default route that {device} learnt; set "
                        f"net.ipv6.conf.{device}.accept_ra = 2 to keep it"
                    )
        self._forward(_FORWARDING_V6)

    def _learnt_from(self) -> set[str]:
        """The interfaces whose default route came from a router's advertisement."""
        routes = [line.split() for line in self._run("cat", "/proc/net/ipv6_route").splitlines()]
        return {words[9] for words in routes if words[1] == "00" and int(words[8], 16) & _LEARNT}

    def _run(self, *words: str) -> str:
        return self._execute([*self._inside, *words], timeout_s=_TIMEOUT_S)


def table_of(network: Network) -> str:
    """The name of the network's tables."""
    return f"micronova_network_{network.id}"


def ruleset(network: Network, mac: str | None, source_ip: str = "") -> str:
    """What nft is told to have exactly the network's tables, at once. Arguments as of `Gateway`."""
    return "\n".join([removal(network), *_leaving(network, source_ip), *_at_home(network, mac)])


def removal(network: Network) -> str:
    """What nft is told to have none of the network's tables, whether there are any or not."""
    name = table_of(network)
    return "".join(f"table {family} {name}\ndelete table {family} {name}\n" for family in ("inet", "bridge"))


def _leaving(network: Network, source_ip: str) -> list[str]:
    """Packets from the network to elsewhere leave under the host's address; those of IPv6 if theirs is private."""
    if network.routing != "nat":
        return []
    how = f"snat ip to {source_ip}" if source_ip else "masquerade"
    rules = [f"ip saddr {network.cidr} ip daddr != {network.cidr} {how}"]
    if network.advertised and network.cidr_v6 is not None and ip_network(network.cidr_v6).is_private:
        rules.append(f"ip6 saddr {network.cidr_v6} ip6 daddr != {network.cidr_v6} masquerade")
    return [_table("inet", network, _chain("leaving", "nat hook postrouting priority srcnat", rules))]


def _at_home(network: Network, mac: str | None) -> list[str]:
    """Every host is its own guests' DHCP server and gateway, by the same names: none hears of another's."""
    uplink = uplink_of(network)
    if uplink is None or mac is None or network.dhcp_server is None:
        return []
    leaving = [f'oifname "{uplink}" ether saddr {mac} drop']
    coming = [f'iifname "{uplink}" ether {end} {mac} drop' for end in ("saddr", "daddr")]
    chains = _chain("leaving", "filter hook postrouting priority filter", leaving)
    chains += _chain("coming", "filter hook prerouting priority filter", coming)
    return [_table("bridge", network, chains)]


def _table(family: str, network: Network, chains: str) -> str:
    return f"table {family} {table_of(network)} {{\n{chains}}}\n"


def _chain(name: str, kind: str, rules: Sequence[str]) -> str:
    body = "".join(f"        {rule}\n" for rule in rules)
    return f"    chain {name} {{\n        type {kind}; policy accept;\n{body}    }}\n"
