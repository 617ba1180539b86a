"""Every exception of the package, one tree.

    PrivateKerasError
    ├── UnsupportedError      the model uses something that cannot run on shares (raised before anything is shared)
    ├── InputError            data of the wrong shape, dtype or range
    ├── DivergenceError       a training run whose values left the range of fixed point
    ├── FileError             a model file that is missing, truncated, hostile or of an unknown format
    ├── PlanError             a plan that a server refuses
    ├── ClusterError          servers that cannot be reached, disagree, or were lost
    │   ├── ServerUnavailable     nobody answers at the address
    │   ├── PeerLost              a server went away in the middle of a job
    │   ├── DeadlineExceeded      a job or a call took longer than it may
    │   ├── HandleNotFound        shares a job names are not (or no longer) on the server
    │   └── VersionMismatch       servers or client run different versions or configurations
    ├── FrameError            bytes between servers that are not what the protocol expects next
    ├── SecurityError         a missing or wrong certificate, randomness used twice, an identity without the right
    └── KernelError           the native extension is missing or was called with arrays it cannot take

Messages say what was expected, what was received (shape, dtype, name, party; never a secret value) and what to do.
"""


class PrivateKerasError(Exception):
    """Root of the tree: `except pk.errors.PrivateKerasError` catches all of ours and nothing else."""


class UnsupportedError(PrivateKerasError, NotImplementedError):
    """A layer, operation or argument that cannot run on shares; names it and what to use instead."""


class InputError(PrivateKerasError, ValueError):
    """Data whose shape, dtype, rank or range does not fit; never quotes a value."""


class DivergenceError(PrivateKerasError, ArithmeticError):
    """A training run whose values left the range of fixed point; the model has the values of before the epoch."""


class FileError(PrivateKerasError, OSError):
    """A model file that cannot be read safely."""


class PlanError(PrivateKerasError, ValueError):
    """A plan that is not well formed or not allowed."""


class ClusterError(PrivateKerasError, RuntimeError):
    """Something between client and servers, or between servers."""


class ServerUnavailable(ClusterError):
    """Nobody answers at a server's address."""


class PeerLost(ClusterError):
    """A server's connection ended in the middle of a job."""


class DeadlineExceeded(ClusterError):
    """A job or call took longer than its deadline."""


class HandleNotFound(ClusterError):
    """Shares named by a job are not on the server: deleted, or the server was restarted."""


class VersionMismatch(ClusterError):
    """Servers or client run different versions, plans or configurations."""


class FrameError(PrivateKerasError):
    """Bytes from a peer are not the message expected next; names the peer."""


class SecurityError(PrivateKerasError):
    """A certificate, identity or key is missing, wrong or used twice."""


class KernelError(PrivateKerasError):
    """The ring kernel is missing or was handed arrays it cannot take."""
