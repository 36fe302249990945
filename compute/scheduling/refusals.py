"""The sentence that says why no host could take an instance, at any number of hosts."""

from __future__ import annotations

from collections.abc import Mapping

HOSTS_NAMED = 8
KINDS_NAMED = 10
NAMES_PER_KIND = 3


def explain(what: str, refused: Mapping[str, str]) -> str:
    """`no valid host for ...`: a few hosts each with its reason, many grouped by what their reasons share."""
    if not refused:
        return f"no valid host for {what}: no compute host is registered"
    if len(refused) <= HOSTS_NAMED:
        return f"no valid host for {what}: " + "; ".join(f"{host}: {reason}" for host, reason in refused.items())
    return f"no valid host for {what}: {len(refused)} hosts: " + "; ".join(_grouped(refused))


def _grouped(refused: Mapping[str, str]) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for host, reason in refused.items():
        kinds.setdefault(reason.partition(" (")[0], []).append(host)
    ranked = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    told = [_kind(kind, hosts, refused) for kind, hosts in ranked[:KINDS_NAMED]]
    rest = sum(len(hosts) for _kind, hosts in ranked[KINDS_NAMED:])
    return [*told, f"{rest} more for other reasons"] if rest else told


def _kind(kind: str, hosts: list[str], refused: Mapping[str, str]) -> str:
    if len(hosts) == 1:
        return f"{hosts[0]}: {refused[hosts[0]]}"
    if len(hosts) <= NAMES_PER_KIND:
        return "; ".join(f"{host}: {refused[host]}" for host in hosts)
    return f"{len(hosts)} {kind}, as {hosts[0]}: {refused[hosts[0]]}"
