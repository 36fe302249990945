"""Key pairs: public keys that users put by for their instances; private keys are never seen here."""

from __future__ import annotations

import base64
import binascii
import hashlib

from compute import valid
from compute.context import RequestContext
from compute.db_errors import translated
from compute.errors import InvalidInputError
from db import key_pairs
from db.key_pairs import KeyPair
from db.session import Database

LONGEST_KEY = 16384
_FIELDS = {
    "ssh-rsa": 3,
    "ssh-ed25519": 2,
    "ecdsa-sha2-nistp256": 3,
    "ecdsa-sha2-nistp384": 3,
    "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3,
    "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""How many length-prefixed fields a key of each kind has (RFC 4253 and 5656, OpenSSH PROTOCOL.u2f)."""


def create(db: Database, context: RequestContext, *, name: str, public_key: str) -> KeyPair:
    """Put a public key by under a name of the caller's. Raises InvalidInputError or DuplicateError."""
    valid.name("key pair name", name)
    line = public_key.strip()
    values = {
        "name": name,
        "user_id": context.user_id,
        "project_id": context.project_id,
        "fingerprint": fingerprint(line),
        "public_key": line,
    }
    with translated(duplicate=f"user {context.user_id} has a key pair {name!r:.60} already"):
        db.run(key_pairs.create, **values)
        return db.query(key_pairs.get, context.user_id, name)


def get_all(db: Database, context: RequestContext, *, user_id: str | None = None) -> list[KeyPair]:
    """Keys by name: the caller's; an administrator sees everyone's, or one user's."""
    with translated():
        return db.query(key_pairs.list_all, user_id=user_id if context.is_admin else context.user_id)


def delete(db: Database, context: RequestContext, name: str) -> None:
    """Forget a key of the caller's."""
    with translated():
        db.run(key_pairs.delete, context.user_id, name)


def fingerprint(public_key: str) -> str:
    """`SHA256:...` of an OpenSSH public key line, as ssh-keygen -l prints it; InvalidInputError when it is none."""
    if "PRIVATE KEY" in public_key:
        raise InvalidInputError("public key: this is a private key; give the .pub file")
    if len(public_key) > LONGEST_KEY or "\n" in public_key or not public_key.isprintable():
        raise InvalidInputError(f"public key: not one line of at most {LONGEST_KEY} printable characters")
    kind, _, rest = public_key.partition(" ")
    if kind not in _FIELDS:
        raise InvalidInputError(f"public key: kind {kind!r:.60} is not one of {', '.join(_FIELDS)}")
    blob = _decode(rest.split(" ", 1)[0])
    fields = _fields(blob)
    if len(fields) != _FIELDS[kind] or fields[0] != kind.encode():
        raise InvalidInputError(f"public key: its content is no {kind} key")
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInputError(f"public key: not base64: {exc}") from exc


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed fields of a key; InvalidInputError when it is cut short."""
    fields = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length or not length:
            raise InvalidInputError("public key: it is cut short")
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return fields
