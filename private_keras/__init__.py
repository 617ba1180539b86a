"""Keras 3 on secret shares: Keras' names, and ours where they are secure.

    import private_keras as pk
    model = pk.models.load_model("digits.h5")
    y = model.predict(x)

Names below are looked up in a table when they are first used (PEP 562), because servers and the command line import
this package too and must never load Keras or TensorFlow. A program that imports the package to predict wants the
opposite: the seconds that TensorFlow takes belong to `import`, not to the first prediction. So the facade is loaded
right away, unless the process is our own command line or a test runner.
"""
import importlib
import os
import sys
from pathlib import Path

from private_keras import errors
from private_keras.version import VERSION

__version__ = VERSION

_OWN = {
    "Sequential": "private_keras.models",
    "Model": "private_keras.models",
    "layers": "private_keras.layers",
    "models": "private_keras.models",
    "convert": "private_keras.models",
    "plans": "private_keras.models",
    "Network": "private_keras.forecast",
    "Machine": "private_keras.forecast",
    "measure_machine": "private_keras.forecast",
    "federated": "private_keras.federated",
    "share": "private_keras.tensor",
    "secret": "private_keras.tensor",
    "shared": "private_keras.tensor",
    "forget": "private_keras.tensor",
    "forget_policies": "private_keras.tensor",
    "set_policy": "private_keras.tensor",
    "deliveries": "private_keras.cluster",
    "receive": "private_keras.cluster",
    "Delivery": "private_keras.cluster.results",
    "SecretTensor": "private_keras.tensor",
    "Policy": "private_keras.server.policy",
    "connect": "private_keras.cluster",
    "LocalCluster": "private_keras.cluster",
}
# Keras' own, because they are traced or run on the client: names, and modules that can be imported from here too.
_KERAS = (
    "Function", "Initializer", "Input", "InputSpec", "KerasTensor", "Layer", "Loss", "Metric", "Operation",
    "Optimizer", "Regularizer", "Variable", "backend", "config", "dtype_policies", "mixed_precision",
    "name_scope", "preprocessing", "random", "tree", "visualization",
)
_MODULES = (
    "activations", "callbacks", "constraints", "datasets", "initializers", "losses", "metrics", "optimizers",
    "ops", "regularizers", "saving", "utils",
)
_TABLE = _OWN | dict.fromkeys(_KERAS, "keras") | {name: f"{__name__}.{name}" for name in _MODULES}

__all__ = ["errors", *_TABLE]

# What makes plain models, whose predict would run in the clear.
_ABSENT = {"applications": "convert the model: private_keras.convert(keras.applications.ResNet50(...))"}


def __getattr__(name: str) -> object:
    """Loads one name of the facade from the module that the table gives for it."""
    if name not in _TABLE:
        advice = f"; {_ABSENT[name]}" if name in _ABSENT else ""
        raise AttributeError(f"module 'private_keras' has no attribute {name!r}{advice}")
    module = importlib.import_module(_TABLE[name])
    value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_TABLE})


def _is_tool() -> bool:
    """Whether this process is a server, our command line or a test runner, rather than somebody's program.

    The package sees only how the process was started: as `python -m private_keras...`, or as an installed script.
    """
    if "-m" in sys.orig_argv[:-1]:
        module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        return module.split(".")[0] in (__name__, "pytest")
    return Path((getattr(sys, "argv", None) or [""])[0]).stem in ("private-keras", "pytest")


# gRPC's Python face cannot ask for TLS 1.3 alone. This list of suites is for TLS 1.2 and older only, and holds one that
# needs a pre-shared key, which nobody has: a handshake below 1.3 finds no suite in common and fails. gRPC reads it when
# it is loaded, so it is set here, for our servers' processes and not for programs that use the package.
TLS_FLOOR = ("GRPC_SSL_CIPHER_SUITES", "ECDHE-PSK-AES128-CBC-SHA")
if _is_tool():
    os.environ.__setitem__(*TLS_FLOOR)

# TensorFlow prints a page about the processor unless it is told otherwise before it is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if not _is_tool():
    for _name in ("models", "layers", "convert", "connect"):
        __getattr__(_name)
