"""Weights: which of the hosts that fit is best. Each resource counts from 0 (least free) to 1 (most free)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from random import SystemRandom

from db.compute_nodes import Candidate

Weight = Callable[[Candidate], float]

_RANDOM = SystemRandom()  # forked daemons must not draw the same hosts


def free_ram(candidate: Candidate) -> float:
    """Memory to spare, MiB."""
    node = candidate.node
    return node.memory_mb * node.ram_allocation_ratio - node.memory_mb_used


def free_vcpus(candidate: Candidate) -> float:
    """The vCPUs to spare."""
    node = candidate.node
    return node.vcpus * node.cpu_allocation_ratio - node.vcpus_used


def free_disk(candidate: Candidate) -> float:
    """Disk space to spare, GiB."""
    node = candidate.node
    return node.local_gb * node.disk_allocation_ratio - node.local_gb_used


def scores(fits: Sequence[Candidate], multipliers: Mapping[Weight, float]) -> list[float]:
    """One score a host, higher is better: positive multipliers spread instances, negative ones pack them."""
    totals = [0.0] * len(fits)
    for weight, multiplier in multipliers.items():
        if multiplier:
            totals = [total + multiplier * part for total, part in zip(totals, _normal(fits, weight), strict=True)]
    return totals


def _normal(fits: Sequence[Candidate], weight: Weight) -> list[float]:
    raw = [weight(candidate) for candidate in fits]
    least = min(raw)
    span = max(raw) - least
    return [(value - least) / span for value in raw] if span else [0.0] * len(raw)


def best(fits: Sequence[Candidate], totals: Sequence[float], subset_size: int = 1) -> Candidate:
    """One of the `subset_size` hosts with the highest totals, by lot; ties with the last of them take part."""
    bar = nlargest(max(1, subset_size), totals)[-1]
    return any_of([candidate for candidate, total in zip(fits, totals, strict=True) if total >= bar])


def any_of(fits: Sequence[Candidate]) -> Candidate:
    """One host by lot."""
    return _RANDOM.choice(fits)
