"""Key pairs: public keys that users have put by, under names of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from db import rows
from db.models import key_pairs
from db.session import Tx


@dataclass(frozen=True, slots=True)
class KeyPair:
    """One public key of a user."""

    id: int
    name: str
    user_id: str
    project_id: str
    fingerprint: str
    public_key: str
    created_at: datetime


_K = key_pairs.c
_LIVE = rows.select_live(KeyPair, key_pairs).order_by(_K.name)
_BY_NAME = _LIVE.where(_K.user_id == sa.bindparam("user_id"), _K.name == sa.bindparam("key_name"))


def create(tx: Tx, *, name: str, user_id: str, project_id: str, fingerprint: str, public_key: str) -> int:
    """Keep a public key and return its id; the name must be free among the user's."""
    values = {"name": name, "user_id": user_id, "project_id": project_id}
    return rows.insert(tx, key_pairs, {**values, "fingerprint": fingerprint, "public_key": public_key})


def get(tx: Tx, user_id: str, name: str) -> KeyPair:
    """The user's key of this name."""
    return rows.one(tx, KeyPair, _BY_NAME, "key pair", name, {"user_id": user_id, "key_name": name})


def list_all(tx: Tx, *, user_id: str | None = None) -> list[KeyPair]:
    """Keys by name: everyone's, or one user's."""
    return rows.every(tx, KeyPair, _LIVE if user_id is None else _LIVE.where(_K.user_id == user_id))


def delete(tx: Tx, user_id: str, name: str) -> None:
    """Forget a key; instances keep the copy they were made with."""
    rows.soft_delete(tx, key_pairs, get(tx, user_id, name).id)
