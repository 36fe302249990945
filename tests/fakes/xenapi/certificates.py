"""A certificate authority of our own, and certificates for the loopback addresses of the hosts."""

from __future__ import annotations

import datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ADDRESSES = ("127.0.0.1", "127.0.0.2")
DAY = datetime.timedelta(days=1)


@cache
def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pool simulator's authority")])
    builder = _builder(name, name, key.public_key(), DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = builder.add_extension(usage, critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256()), key


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, valid_for: datetime.timedelta
) -> x509.CertificateBuilder:
    today = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(today - 2 * DAY).not_valid_after(today + valid_for)


def write_authority(folder: Path) -> Path:
    """Write the authority's certificate, which clients are to trust; its path."""
    path = folder / "ca.pem"
    path.write_bytes(_authority()[0].public_bytes(serialization.Encoding.PEM))
    return path


def write_certificate(folder: Path, *, expired: bool = False) -> Path:
    """Write a host's certificate and key into one file; its path."""
    path = folder / ("expired.pem" if expired else "host.pem")
    path.write_bytes(_certificate(expired=expired))
    return path


@cache
def _certificate(*, expired: bool) -> bytes:
    authority, authority_key = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "pool simulator")])
    builder = _builder(name, authority.subject, key.public_key(), -DAY if expired else DAY)
    names = [x509.IPAddress(ip_address(one)) for one in ADDRESSES]
    builder = builder.add_extension(x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = builder.add_extension(issuer, critical=False).sign(authority_key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private
