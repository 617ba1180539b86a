"""The closed table of names that a model file may use: Keras' own modelling objects, nothing that runs a file's code.

Keras finds objects by importing the module a file names. Here every (module, class name) pair of a file is looked up in
this table first, so Keras never gets to import anything else.
"""
from collections.abc import Mapping

import keras
from keras.src.ops import core, einops, image, linalg, math, nn, numpy

_PUBLIC = {
    "keras": keras,
    "keras.activations": keras.activations,
    "keras.constraints": keras.constraints,
    "keras.dtype_policies": keras.dtype_policies,
    "keras.initializers": keras.initializers,
    "keras.layers": keras.layers,
    "keras.losses": keras.losses,
    "keras.metrics": keras.metrics,
    "keras.models": keras.models,
    "keras.optimizers": keras.optimizers,
    "keras.optimizers.schedules": keras.optimizers.schedules,
    "keras.regularizers": keras.regularizers,
}
_KINDS = (
    keras.Operation, keras.Initializer, keras.Regularizer, keras.constraints.Constraint, keras.Loss, keras.Metric,
    keras.Optimizer, keras.optimizers.schedules.LearningRateSchedule, keras.dtype_policies.DTypePolicy,
)
_FUNCTIONS = ("keras.activations", "keras.constraints", "keras.initializers", "keras.losses", "keras.metrics",
              "keras.regularizers")

# Class names that Keras' serialisation gives a meaning of its own; their configs hold data only.
DATA = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"})

_REWRITE = "write the step with keras.ops or keras.layers, and save the model again"
# What is refused by name, with what to do instead.
REFUSED = {
    "Lambda": f"a Lambda layer holds Python code; {_REWRITE}",
    "__lambda__": f"a Python lambda is code; {_REWRITE}",
    "__typespec__": f"TensorFlow type specifications are loaded by import; {_REWRITE}",
    "TFOpLambda": f"it wraps a TensorFlow function that a Keras 2 model called directly; {_REWRITE}",
    "SlicingOpLambda": f"it wraps x[...] of a Keras 2 model; use keras.layers.Cropping or Reshape, or {_REWRITE}",
    "ClassMethod": f"it wraps a TensorFlow method that a Keras 2 model called directly; {_REWRITE}",
    "TensorFlowOpLayer": f"it holds a TensorFlow graph; {_REWRITE}",
    "TFSMLayer": f"it runs a TensorFlow SavedModel; {_REWRITE}",
    "JaxLayer": f"it runs a JAX function; {_REWRITE}",
    "FlaxLayer": f"it runs a Flax module; {_REWRITE}",
    "TorchModuleWrapper": f"it runs a PyTorch module; {_REWRITE}",
}
# Layers that Keras 2 had under another name, as Keras 3 knows them.
_KERAS_2 = {"Functional", "Model", "InputLayer"}


def _names(module: object) -> frozenset[str]:
    members = vars(module).items()
    return frozenset(n for n, v in members if isinstance(v, type) and issubclass(v, _KINDS) and n not in REFUSED)


CLASSES: Mapping[str, frozenset[str]] = (
    {name: _names(module) for name, module in _PUBLIC.items()}
    | {module.__name__: _names(module) for module in (core, einops, image, linalg, math, nn, numpy)}
    | {"keras.src.models.functional": frozenset({"Functional"})}
)
FUNCTIONS = frozenset(
    n for module in _FUNCTIONS for n, v in vars(_PUBLIC[module]).items()
    if callable(v) and not isinstance(v, type) and n not in ("deserialize", "serialize", "get")
)
# Files in the older format name classes without a module.
LEGACY = frozenset().union(_KERAS_2, *(CLASSES[name] for name in _PUBLIC))
# Operations in a Functional model, which Keras writes to the older format without being able to read them.
OPERATIONS = frozenset().union(*(found for name, found in CLASSES.items() if name.startswith("keras.src.ops")))
