from __future__ import annotations

import pytest

from db import key_pairs
from db.errors import DuplicateRowError, RowNotFoundError
from db.session import Database, Tx


def a_key(tx: Tx, **changes: str) -> int:
    values = {
        "name": "laptop",
        "user_id": "ann",
        "project_id": "lab",
        "fingerprint": "aa:bb",
        "public_key": "ssh-rsa A",
    }
    return key_pairs.create(tx, **(values | changes))


def test_a_key_belongs_to_its_user(tx: Tx) -> None:
    a_key(tx)
    a_key(tx, user_id="bob", public_key="B")
    assert key_pairs.get(tx, "bob", "laptop").public_key == "B"
    assert [each.user_id for each in key_pairs.list_all(tx, user_id="ann")] == ["ann"]
    assert len(key_pairs.list_all(tx)) == 2


def test_a_user_has_a_name_once_until_it_is_deleted(database: Database) -> None:
    database.run(a_key)
    with pytest.raises(DuplicateRowError):
        database.run(a_key)
    database.run(key_pairs.delete, "ann", "laptop")
    database.run(a_key)
    database.run(key_pairs.delete, "ann", "laptop")
    with pytest.raises(RowNotFoundError, match="no key pair laptop"):
        database.run(key_pairs.delete, "ann", "laptop")
