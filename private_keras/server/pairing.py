"""Secrets that two servers share: one for each lane, and from it one for each job.

Lane: X25519 between two fresh keys, inside a channel that is authenticated already (TLS certificates, or a directory of
one user); bound by HKDF-SHA256 to all that both ends said while setting the lane up. Job: HKDF-SHA256 of the lane's
secret, salted with both ends' fresh nonces and bound to job, plan and pair; so no mask is used twice, even if a job id
were.
Sources: RFC 7748 (X25519), RFC 5869 (HKDF).
"""

import hashlib
import secrets
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from private_keras.errors import FrameError, SecurityError, VersionMismatch
from private_keras.server.apart import PartsApart

WIRE_VERSION = 2
_SETUP = struct.Struct("<8sII32s")
_HELLO = struct.Struct("<8sII16s16s32s32s32s")
_SETUP_MAGIC = b"pk lane\0"
_HELLO_MAGIC = b"pk job\0\0"
SETUP_BYTES = _SETUP.size
HELLO_BYTES = _HELLO.size
# In place of a hello: the job is here, and its turn is still to come.
WAIT = bytes(HELLO_BYTES)


def derive(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256."""
    return HKDF(hashes.SHA256(), length, salt, info).derive(secret)


class Setup:
    """One end of a new lane: `message` goes to the peer, `finish` takes the peer's."""

    def __init__(self, party: int):
        self._party = party
        self._key = X25519PrivateKey.generate()
        self.message = _SETUP.pack(_SETUP_MAGIC, WIRE_VERSION, party, self._key.public_key().public_bytes_raw())

    def finish(self, theirs: bytes, peer: str) -> tuple[int, bytes]:
        """The peer's party index, as it claims, and the lane's secret.

        Raises:
            VersionMismatch, FrameError, SecurityError: naming the peer.
        """
        magic, version, party, public = _SETUP.unpack(theirs)
        if magic != _SETUP_MAGIC:
            raise FrameError(f"{peer or 'the caller'}: expected the greeting of a private_keras server")
        if version != WIRE_VERSION:
            raise VersionMismatch(
                f"{peer}: expected wire version {WIRE_VERSION}. Received: {version}; install the same release"
            )
        if party == self._party:
            raise SecurityError(f"{peer} claims to be this server, party {party}")
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise SecurityError(f"{peer}: the public key of the lane is not usable") from None
        transcript = self.message + theirs if self._party < party else theirs + self.message
        digest = hashes.Hash(hashes.SHA256())
        digest.update(transcript)
        return party, derive(shared, digest.finalize(), b"private_keras lane", 32)


@dataclass(frozen=True)
class Hello:
    """What one end of a lane says at the start of a job.

    Attributes:
        digest: of its plan and schedule.
        parts: hash of what the peer must have in common with it of the job's inputs (`ties.Common`).
    """

    protocol: str
    party: int
    job: bytes
    digest: bytes
    parts: bytes
    nonce: bytes

    @classmethod
    def fresh(cls, protocol: str, party: int, job: bytes, digest: bytes, parts: bytes) -> "Hello":
        """With a new nonce."""
        return cls(protocol, party, job, digest, parts, secrets.token_bytes(32))

    @classmethod
    def parse(cls, message: bytes, peer: str) -> "Hello":
        """Reads a hello; raises FrameError or VersionMismatch naming the peer."""
        magic, version, party, protocol, job, digest, parts, nonce = _HELLO.unpack(message)
        if magic != _HELLO_MAGIC:
            raise FrameError(f"{peer}: expected the start of a job")
        if version != WIRE_VERSION:
            raise VersionMismatch(
                f"{peer}: expected wire version {WIRE_VERSION}. Received: {version}; install the same release"
            )
        return cls(protocol.rstrip(b"\0").decode("ascii", "replace"), party, job, digest, parts, nonce)

    def pack(self) -> bytes:
        """As bytes, always `HELLO_BYTES`."""
        protocol = self.protocol.encode()
        return _HELLO.pack(
            _HELLO_MAGIC, WIRE_VERSION, self.party, protocol, self.job, self.digest, self.parts, self.nonce
        )

    def agree(self, theirs: "Hello", lane_secret: bytes, peer_party: int, peer: str) -> "Agreed":
        """What this job shares with the peer, once both hellos fit.

        Raises:
            VersionMismatch: the peer runs another plan, schedule or protocol.
            FrameError: the peer answers for another job or party.
            PartsApart: the peer has other parts of the inputs than those that belong to these.
        """
        if theirs.party != peer_party or theirs.job != self.job:
            raise FrameError(
                f"{peer}: expected party {peer_party} and this job. Received: party {theirs.party}, another job"
            )
        if theirs.protocol != self.protocol:
            raise VersionMismatch(f"{peer}: expected protocol {self.protocol}. Received: {theirs.protocol}")
        if theirs.digest != self.digest:
            raise VersionMismatch(
                f"{peer} has another plan or another schedule (caller, steps, rows, public values) for this job: "
                f"expected digest {self.digest.hex()[:16]}. Received: {theirs.digest.hex()[:16]}"
            )
        if theirs.parts != self.parts:
            raise PartsApart({peer: []})
        if theirs.nonce == self.nonce:
            raise SecurityError(f"{peer} sent this server's own nonce back")
        low, high = (self, theirs) if self.party < theirs.party else (theirs, self)
        nonces = low.nonce + high.nonce
        info = b"private_keras job" + self.job + self.digest + bytes([low.party, high.party])
        return Agreed(derive(lane_secret, nonces, info, 16), hashlib.sha256(info + nonces).digest())


@dataclass(frozen=True)
class Agreed:
    """What two servers have in common in one job, and no other two, nor these in another job.

    Attributes:
        key: 16 bytes, secret.
        name: 32 bytes.
    """

    key: bytes = field(repr=False)
    name: bytes
