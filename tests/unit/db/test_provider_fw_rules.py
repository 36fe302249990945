from __future__ import annotations

import pytest

from db import provider_fw_rules
from db.errors import RowNotFoundError
from db.session import Tx


def test_a_rule_is_listed_until_it_is_deleted(tx: Tx) -> None:
    rule_id = provider_fw_rules.create(tx, protocol="tcp", cidr="192.0.2.0/24", from_port=25, to_port=25)
    kept = provider_fw_rules.create(tx, protocol="icmp", cidr="0.0.0.0/0")
    assert [each.cidr for each in provider_fw_rules.list_all(tx)] == ["192.0.2.0/24", "0.0.0.0/0"]
    provider_fw_rules.delete(tx, rule_id)
    assert [each.id for each in provider_fw_rules.list_all(tx)] == [kept]
    with pytest.raises(RowNotFoundError):
        provider_fw_rules.delete(tx, rule_id)
