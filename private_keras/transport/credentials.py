"""Who a party is on the wire: its certificate and key, what it trusts, and the files as they are renewed."""

import datetime
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from private_keras.errors import SecurityError

WARN_DAYS = 30


@dataclass(frozen=True)
class Pem:
    """What lies in a party's files: PEM texts.

    Attributes:
        trusted: certificates of the authority, or of all parties where each made its own.
        expires: when the first of the party's certificate and the authority's ends, and which of them.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    trusted: bytes
    expires: tuple[datetime.datetime, str]


@dataclass(frozen=True)
class Credentials:
    """Files that prove who this party is, and what proves who the others are.

    Attributes:
        trusted: the authority's PEM file; or without an authority each party's, of which some may not be here.
        certificate: PEM file of this party's certificate.
        key: PEM file of its private key.
        pins: name -> "sha256:<hex>" of the public key, for parties whose key is pinned.
    """

    trusted: tuple[Path, ...]
    certificate: Path
    key: Path
    pins: dict[str, str] = field(default_factory=dict)

    def read(self) -> Pem:
        """The files' content, checked as each peer would.

        Raises:
            SecurityError: a file that is missing, expired, not pinned as it should be, or does not fit the others.
        """
        own = read_certificate(self.certificate)
        check_dates(own, self.certificate.name)
        check_pin(own, name_of(own), self.pins)
        secret = _bytes(self.key)
        try:
            fits = load_pem_private_key(secret, None).public_key() == own.public_key()
        except (ValueError, TypeError):
            fits = False
        if not fits:
            raise SecurityError(f"cannot use {self.certificate} with {self.key}: they are not of one pair")
        ends = [(own.not_valid_after_utc, self.certificate.name)]
        # A party that made its own certificate trusts that of each other one: an authority is a list of one.
        trusted = [path for path in self.trusted if path.is_file() or len(self.trusted) == 1]
        for path in trusted:
            certificate = read_certificate(path)
            if len(self.trusted) == 1:
                check_dates(certificate, path.name)
                ends.append((certificate.not_valid_after_utc, path.name))
            else:
                check_pin(certificate, path.stem, self.pins)
        return Pem(self.certificate.read_bytes(), secret, b"".join(_bytes(path) for path in trusted), min(ends))


class Watched:
    """A party's files as they are now: renewed ones are taken up once they fit each other. Thread safe.

    Args:
        files: what to watch.
        refused: told why files that have changed are not used; those from before stay in use.

    Raises:
        SecurityError: as `Credentials.read`.
    """

    def __init__(self, files: Credentials, refused: Callable[[str], None] = lambda reason: None):
        self.files = files
        self._refused = refused
        self._lock = threading.Lock()
        self._seen = self._state()
        self._now = 0, files.read()

    def current(self) -> tuple[int, Pem]:
        """How often the files have been renewed, and what they hold. Cost: one `stat` a file."""
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state
                try:
                    self._now = self._now[0] + 1, self.files.read()
                except SecurityError as error:
                    self._refused(str(error))
            return self._now

    def _state(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in (self.files.certificate, self.files.key, *self.files.trusted):
            try:
                state = path.stat()
                found.append((state.st_mtime_ns, state.st_size, state.st_ino))
            except OSError:
                found.append(None)
        return found


def pin_of(certificate: x509.Certificate) -> str:
    """Pin of a certificate: SHA-256 of its public key (SubjectPublicKeyInfo, as in RFC 7469)."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(spki).hexdigest()


def name_of(certificate: x509.Certificate) -> str:
    """The party's name: the certificate's only DNS name.

    Raises:
        SecurityError: none or several.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise SecurityError(
            "a certificate without a party's name; make certificates with `private-keras keys`"
        ) from None
    found = names.get_values_for_type(x509.DNSName)
    if len(found) != 1:
        raise SecurityError(f"a certificate must name one party. Received: {len(found)} names")
    return found[0]


def check_pin(certificate: x509.Certificate, name: str, pins: dict[str, str]) -> None:
    """Raises `SecurityError` when `name` is pinned to another key than this certificate's."""
    if name in pins and pins[name] != pin_of(certificate):
        raise SecurityError(f"{name} showed a certificate whose key is not the one pinned in the cluster's description")


def check_dates(certificate: x509.Certificate, what: str) -> None:
    """Raises `SecurityError` when a certificate of ours has expired or is not valid yet; each peer would refuse it."""
    now = datetime.datetime.now(datetime.UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= now <= last:
        raise SecurityError(
            f"{what} is expired or not valid yet: it is good from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} "
            "UTC; make a new one with `private-keras keys --renew`"
        )


def days_left(end: datetime.datetime) -> int:
    """Whole days until a certificate ends; negative after."""
    return (end - datetime.datetime.now(datetime.UTC)).days


def read_certificate(path: Path) -> x509.Certificate:
    """The certificate in a PEM file; `SecurityError` when there is none."""
    try:
        return x509.load_pem_x509_certificate(_bytes(path))
    except ValueError:
        raise SecurityError(f"no certificate in {path}; make certificates with `private-keras keys`") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SecurityError(
            f"no file {path} ({error.strerror}); make certificates with `private-keras keys` and copy each party "
            "its own"
        ) from None
