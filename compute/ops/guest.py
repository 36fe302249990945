"""Change things inside running guests, through an agent in them."""

from __future__ import annotations

import base64
import binascii
import secrets

from compute.errors import InvalidInputError
from compute.valid import one_of
from compute.work import Work
from virt.driver import InjectsGuest, require

PASSWORD_LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"  # noqa: S105 - no 0, 1, I, O, l


def generate_password(length: int) -> str:
    """A password without letters that look alike."""
    return "".join(secrets.choice(PASSWORD_LETTERS) for _ in range(length))


def set_admin_password(work: Work, default_length: int) -> None:
    """Set the administrator's password; one that nobody gave is made up."""
    new_pass = work.args.get("new_pass") or generate_password(default_length)
    require(work.driver, InjectsGuest).set_admin_password(work.spec, new_pass)


def inject_file(work: Work) -> None:
    """Write a file in the guest."""
    path, contents = work.args["path"], work.args["file_contents"]
    is_text = one_of("encoding", work.args.get("encoding", "text"), ("text", "base64")) == "text"
    data = contents.encode() if is_text else decode(contents)
    require(work.driver, InjectsGuest).inject_file(work.spec, path, data)


def decode(contents: str) -> bytes:
    """Base64 to bytes; InvalidInputError when it is none."""
    try:
        return base64.b64decode(contents, validate=True)
    except binascii.Error as exc:
        raise InvalidInputError(f"file contents are not base64: {exc}") from exc


def reset_network(work: Work) -> None:
    """Have the guest configure its network anew."""
    require(work.driver, InjectsGuest).reset_network(work.spec)


def inject_network_info(work: Work) -> None:
    """Hand the guest its network facts."""
    require(work.driver, InjectsGuest).inject_network_info(work.spec)
