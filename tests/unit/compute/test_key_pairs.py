import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from compute import key_pairs
from compute.context import RequestContext, get_admin_context
from compute.errors import DuplicateError, InvalidInputError, KeyPairNotFoundError
from tests.fakes.databases import a_database

ANNA = RequestContext(user_id="anna", project_id="lab")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGkAzvNzXFxQGPUFnEyMTJVaLf3QmbAT3eUmzWuNhCNi anna@host"


@pytest.fixture
def db(tmp_path):
    database = a_database(tmp_path)
    yield database
    database.dispose()


@pytest.mark.parametrize(
    "private",
    [
        pytest.param(lambda: rsa.generate_private_key(65537, 2048), id="rsa"),
        pytest.param(ed25519.Ed25519PrivateKey.generate, id="ed25519"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP256R1()), id="nistp256"),
        pytest.param(lambda: ec.generate_private_key(ec.SECP521R1()), id="nistp521"),
    ],
)
def test_a_key_of_every_usual_kind_has_a_fingerprint(private):
    line = private().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert key_pairs.fingerprint(f"{line} somebody").startswith("SHA256:")


def test_a_fingerprint_is_the_one_of_ssh_keygen():
    assert key_pairs.fingerprint(KEY) == "SHA256:" + _sha256(KEY)


def _sha256(line):
    import hashlib

    return base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).decode().rstrip("=")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "ssh-dss AAAA",
        "ssh-ed25519",
        "ssh-ed25519 !!!!",
        KEY.replace("ssh-ed25519 ", "ssh-rsa "),
        KEY[:60],
        f"{KEY}\n{KEY}",
        f"{KEY}\x1b",
        KEY + "x" * 20000,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\xff\xff\xff\xff").decode(),
    ],
)
def test_what_is_no_public_key_is_refused(line):
    with pytest.raises(InvalidInputError, match="public key"):
        key_pairs.fingerprint(line)


def test_a_key_belongs_to_its_user(db):
    key_pairs.create(db, ANNA, name="mine", public_key=KEY + "\n")
    bob = RequestContext(user_id="bob", project_id="lab")
    key_pairs.create(db, bob, name="mine", public_key=KEY)
    with pytest.raises(DuplicateError):
        key_pairs.create(db, ANNA, name="mine", public_key=KEY)
    assert [one.user_id for one in key_pairs.get_all(db, ANNA, user_id="bob")] == ["anna"]
    assert len(key_pairs.get_all(db, get_admin_context())) == 2


def test_a_forgotten_key_is_gone(db):
    key_pairs.create(db, ANNA, name="mine", public_key=KEY)
    key_pairs.delete(db, ANNA, "mine")
    with pytest.raises(KeyPairNotFoundError):
        key_pairs.delete(db, ANNA, "mine")
