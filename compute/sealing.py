"""Seal secrets before they reach the database or the bus, and open them on the host that needs them."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import uuid
from pathlib import Path
from typing import Any

from compute.errors import ConfigError


class Sealer:
    """Fernet (AES-128-CBC + HMAC) with one key for all hosts of a deployment, kept in a 0600 file."""

    def __init__(self, key_file: str) -> None:
        self._path = Path(key_file)
        self._fernet: Any = None
        self._key_bytes = b""

    def seal(self, value: object) -> str:
        """JSON-encode and encrypt `value`; making the key file on first use."""
        return str(self._cipher().encrypt(json.dumps(value).encode()).decode())

    def open(self, sealed: str) -> Any:
        """The value that was sealed; ConfigError when this host has another key."""
        from cryptography.fernet import InvalidToken

        try:
            return json.loads(self._cipher().decrypt(sealed.encode()))
        except InvalidToken as exc:
            raise ConfigError(f"seal_key_file {self._path}: not the key that sealed this; hosts must share it") from exc

    def digest(self, value: object) -> str:
        """64 hexadecimal digits that are the same for equal values, and tell nothing of them without the key."""
        self._cipher()
        return hmac.new(self._key_bytes, json.dumps(value, sort_keys=True).encode(), hashlib.sha256).hexdigest()

    def _cipher(self) -> Any:
        if self._fernet is None:
            from cryptography.fernet import Fernet

            try:
                self._key_bytes = self._key()
                self._fernet = Fernet(self._key_bytes)
            except (OSError, ValueError) as exc:
                raise ConfigError(f"seal_key_file {self._path}: {exc}") from exc
        return self._fernet

    def _key(self) -> bytes:
        from cryptography.fernet import Fernet

        if not self._path.exists():
            draft = self._path.with_name(f".{self._path.name}.{uuid.uuid4()}")
            draft.touch(mode=0o600)
            draft.write_bytes(Fernet.generate_key())
            try:
                os.link(draft, self._path)  # unlike rename, this fails when another process was first
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return self._path.read_bytes()
