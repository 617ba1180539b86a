"""Certificates of a cluster: one authority, one certificate and key (ECDSA P-256) for each party."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from private_keras.errors import FileError, InputError
from private_keras.server.config import NAME
from private_keras.transport.tls import pin_of

DAYS = 825
AUTHORITY = "authority"
# Certificates are valid from a little before now: clocks of hosts differ.
CLOCK_SKEW = datetime.timedelta(minutes=5)


def make_authority(directory: Path, name: str = "private_keras authority", days: int = DAYS) -> None:
    """Writes `authority.pem` and `authority.key` (mode 0600).

    Raises:
        FileError: one of them exists; an authority is never overwritten.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(directory, AUTHORITY, certificate, key)


def make_party(authority: Path, name: str, days: int = DAYS, directory: Path | None = None) -> str:
    """Writes `<name>.pem` and `<name>.key` (mode 0600), signed by the authority in `authority`.

    Args:
        authority: directory with `authority.pem` and `authority.key`.
        name: the party's name in the cluster's description; letters, digits and hyphens.
        days: validity; negative makes one that has expired.
        directory: where to write; default: beside the authority.

    Returns:
        The certificate's pin.

    Raises:
        FileError: the files exist, or the authority's do not.
        InputError: a name that cannot stand in a certificate.
    """
    check_name(name)
    try:
        issuer = x509.load_pem_x509_certificate((authority / f"{AUTHORITY}.pem").read_bytes())
        issuer_key = serialization.load_pem_private_key((authority / f"{AUTHORITY}.key").read_bytes(), None)
    except OSError as error:
        raise FileError(f"no authority in {authority}: {error.strerror}") from None
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    _write_pair(directory or authority, name, certificate, key)
    return pin_of(certificate)


def make_keys(directory: Path, names: Sequence[str], days: int = DAYS) -> dict[str, str]:
    """Certificates for all names; returns their pins by name.

    The authority is the one in `directory`, or a new one when there is none.

    Raises:
        FileError: a file exists already; InputError: a name or number of days that cannot be.
    """
    if days < 1:
        raise InputError(f"expected a validity of at least 1 day. Received: {days}")
    for name in names:
        check_name(name)
        for suffix in (".pem", ".key"):
            _refuse_overwriting(directory / f"{name}{suffix}")
    if not (directory / f"{AUTHORITY}.pem").exists():
        make_authority(directory, days=days)
    return {name: make_party(directory, name, days) for name in names}


def check_name(name: str) -> None:
    """Raises `InputError` for a name that cannot stand in a certificate and in a cluster's description."""
    if not NAME.fullmatch(name) or name == AUTHORITY:
        raise InputError(f"a party's name has 1 to 63 letters, digits and hyphens. Received: {name!r}")


def _refuse_overwriting(path: Path) -> None:
    if path.exists():
        raise FileError(f"{path} exists and is not overwritten; move it away first")


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - CLOCK_SKEW)
        .not_valid_after(end)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _write_pair(directory: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for suffix in (".pem", ".key"):
        _refuse_overwriting(directory / f"{name}{suffix}")
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for suffix, content in ((".key", secret), (".pem", certificate.public_bytes(serialization.Encoding.PEM))):
        descriptor = os.open(directory / f"{name}{suffix}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
