"""Certificates of a cluster (ECDSA P-256): signed by one authority, or by each party itself."""

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
from private_keras.transport.credentials import pin_of

DAYS = 825
MAX_DAYS = 36_500
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
    _write_pair(directory, AUTHORITY, _authority(subject, key, days), key)


def _authority(subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    return (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


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
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(name, key.public_key(), days, *_issuer(authority))
    _write_pair(directory or authority, name, certificate, key)
    return pin_of(certificate)


def make_alone(directory: Path, name: str, days: int = DAYS) -> str:
    """Writes `<name>.pem` and `<name>.key` of a party that needs no authority: others accept this very certificate.

    Returns and raises as `make_party`.
    """
    check_name(name)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed(name, key.public_key(), days, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
    _write_pair(directory, name, certificate, key)
    return pin_of(certificate)


def renew(directory: Path, name: str, days: int = DAYS, new_key: bool = False) -> str:
    """Replaces a party's certificate by one that is valid from now; signed as before, by the authority or by itself.

    The files from before stay, as `<name>.pem.<time>` and `<name>.key.<time>`. There is a file under each name all the
    time. An authority keeps its key, so that what it signed before stays good.

    Args:
        new_key: for a key of its own; the pin then changes.

    Returns:
        The certificate's pin.

    Raises:
        FileError: the party's files, or the authority's that signed them, are not here or cannot be read.
    """
    if name != AUTHORITY:
        check_name(name)
    elif new_key:
        raise InputError("an authority with a new key is another authority; make one in a directory of its own")
    old, key = _certificate(directory, name), _key(directory, name)
    if new_key:
        key = ec.generate_private_key(ec.SECP256R1())
    if name == AUTHORITY:
        certificate = _authority(old.subject, key, days)
    elif old.issuer == old.subject:
        certificate = _signed(name, key.public_key(), days, old.subject, key)
    else:
        certificate = _signed(name, key.public_key(), days, *_issuer(directory))
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S-%f")
    # The key first: with its old certificate it does not fit, and servers that look meanwhile keep what they have.
    files = [(".key", _secret(key))] if new_key else []
    for suffix, content in (*files, (".pem", certificate.public_bytes(serialization.Encoding.PEM))):
        path = directory / f"{name}{suffix}"
        os.link(path, directory / f"{name}{suffix}.{stamp}")
        fresh = directory / f".{name}{suffix}.{stamp}"
        _write(fresh, content)
        os.replace(fresh, path)
    return pin_of(certificate)


def show(directory: Path) -> list[tuple[str, str, datetime.datetime]]:
    """Name, pin and end of every certificate in a directory, the authority's first.

    Raises:
        FileError: no directory, or none in it.
    """
    names = sorted(path.stem for path in directory.glob("*.pem"))
    if not names:
        raise FileError(f"no certificates in {directory}; make some with `private-keras keys`")
    names.sort(key=lambda name: name != AUTHORITY)
    found = [(name, _certificate(directory, name)) for name in names]
    return [(name, pin_of(certificate), certificate.not_valid_after_utc) for name, certificate in found]


def _issuer(directory: Path) -> tuple[x509.Name, ec.EllipticCurvePrivateKey]:
    return _certificate(directory, AUTHORITY).subject, _key(directory, AUTHORITY)


def _certificate(directory: Path, name: str) -> x509.Certificate:
    path = directory / f"{name}.pem"
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise FileError(f"no certificate of {name} in {directory}: {error.strerror}") from None
    except ValueError:
        raise FileError(f"{path} is not a certificate") from None


def _key(directory: Path, name: str) -> ec.EllipticCurvePrivateKey:
    path = directory / f"{name}.key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise FileError(f"no key of {name} in {directory}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise FileError(f"{path} is not a private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FileError(f"{path}: expected a key on an elliptic curve; make certificates with `private-keras keys`")
    return key


def _signed(
    name: str, public_key: ec.EllipticCurvePublicKey, days: int, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    return (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), issuer, public_key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_keys(directory: Path, names: Sequence[str], days: int = DAYS, alone: bool = False) -> dict[str, str]:
    """Certificates for all names; returns their pins by name.

    The authority is the one in `directory`, or a new one when there is none.

    Args:
        alone: without an authority, each by itself.

    Raises:
        FileError: a file exists already; InputError: a name or number of days that cannot be.
    """
    check_days(days)
    for name in names:
        check_name(name)
        for suffix in (".pem", ".key"):
            _refuse_overwriting(directory / f"{name}{suffix}")
    if alone:
        return {name: make_alone(directory, name, days) for name in names}
    if not (directory / f"{AUTHORITY}.pem").exists():
        make_authority(directory, days=days)
    return {name: make_party(directory, name, days) for name in names}


def check_days(days: int) -> None:
    """Raises `InputError` for a validity that cannot be."""
    if not 1 <= days <= MAX_DAYS:
        raise InputError(f"expected a validity of at least 1 day and at most {MAX_DAYS}. Received: {days}")


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
    for suffix, content in ((".key", _secret(key)), (".pem", certificate.public_bytes(serialization.Encoding.PEM))):
        _write(directory / f"{name}{suffix}", content)


def _secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """A new file that only its owner reads, on the disk when this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
