"""A measured figure, what it is held against, and what the peer needs for the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# The peer, measured once on 2 cores: Nova 34 as deployed (nova-compute, conductor, RabbitMQ, PostgreSQL, fake driver).
PEER_BOOTS_PER_S = 5.4
PEER_BOOT_CPU_MS = 243.0
PEER_BOOT_STATEMENTS = 51
PEER_BOOT_TRANSACTIONS = 20
PEER_TERMINATES_PER_S = 8.6
PEER_SYNC_1000_S = 11.0
PEER_RESOURCE_UPDATE_1000_S = 8.0
PEER_RESTART_1000_S = 3.8
PEER_RSS_MIB = 148 + 250
PEER_READY_S = 2.7
PEER_DOMAIN_XML_US = 209.0
PEER_FIREWALL_ADD_MS = 19.0 + 271.0  # CPU, and saving and restoring all rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. at_least and at_most are its targets; ceiling is in its own unit, measured in the same run."""

    what: str
    where: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    ceiling: float | None = None
    peer: float | None = None

    @property
    def ratio(self) -> float | None:
        """The part of its ceiling that it reaches."""
        return None if self.ceiling is None else self.value / self.ceiling

    @property
    def target(self) -> str:
        """The target in words, empty when there is none."""
        if self.at_least is not None:
            return f">= {number(self.at_least)}"
        return "" if self.at_most is None else f"<= {number(self.at_most)}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def verdict(self) -> str:
        """met, missed or nothing."""
        return {True: "met", False: "MISSED", None: ""}[self.met]

    def document(self) -> Mapping[str, Any]:
        """The row as JSON has it."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def number(value: float) -> str:
    """Three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
