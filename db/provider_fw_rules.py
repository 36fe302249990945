"""The provider's deny list: traffic that no security group can let in."""

from __future__ import annotations

from dataclasses import dataclass

from db import rows
from db.errors import RowNotFoundError
from db.models import provider_fw_rules
from db.session import Tx


@dataclass(frozen=True, slots=True)
class ProviderRule:
    """Traffic to drop: protocol, port range (-1: any) and source."""

    id: int
    protocol: str
    from_port: int
    to_port: int
    cidr: str


_LIVE = rows.select_live(ProviderRule, provider_fw_rules).order_by(provider_fw_rules.c.id)


def create(tx: Tx, *, protocol: str, cidr: str, from_port: int = -1, to_port: int = -1) -> int:
    """Add a rule and return its id."""
    values = {"protocol": protocol, "cidr": cidr, "from_port": from_port, "to_port": to_port}
    return rows.insert(tx, provider_fw_rules, values)


def list_all(tx: Tx) -> list[ProviderRule]:
    """Every live rule by id."""
    return rows.every(tx, ProviderRule, _LIVE)


def delete(tx: Tx, rule_id: int) -> None:
    """Drop a rule."""
    if not rows.soft_delete(tx, provider_fw_rules, rule_id):
        raise RowNotFoundError("provider firewall rule", rule_id)
