"""One training step through every kind of layer, with weights before it, against Keras' own.

`python -m tests.test_trace_step_layers` runs all cases of all families and prints the largest error of each family.
"""

import keras
import pytest

from tests.layer_cases import FAMILIES
from tests.layer_cases.case import Case
from tests.stepping import train_error

# Of each family every so many cases, eight where nothing else is said: they differ little in what their gradients need.
EVERY = {"attention": 2, "models": 2, "normalization": 2, "recurrent": 3}
# What Keras itself does not train, or not in this setting.
KERAS = {
    "einsum-dense", "einsum-dense-heads", "einsum-dense-two", "rearrange", "slice-update", "glu-layer", "glu-wide",
    "dictionaries", "embedding-float-input",
}  # fmt: skip
# Without gradients: what they give does not change with small changes of what they get.
FLAT = {
    "discretization-one-hot", "discretization-count", "sign", "greater", "logical", "logical-or", "logical-xor",
    "one-hot", "floor-of-int",
}  # fmt: skip
# Random or refused in training: tests of their own.
RANDOM = ("dropout", "gaussian-", "Random", "AugMix", "CutMix", "MixUp", "RandAugment", "spectral", "alpha-", "mlp")


class Scale(keras.Layer):
    """x times a factor plus a term for each element of the last axis: layers without weights are trained through."""

    def build(self, shape):
        self.factor = self.add_weight(shape=shape[-1:], initializer="ones", name="factor")
        self.term = self.add_weight(shape=shape[-1:], initializer="zeros", name="term")

    def call(self, x):
        return x * self.factor + self.term


def real(tensor) -> bool:
    return keras.backend.standardize_dtype(tensor.dtype).startswith("float")


def step_error(case: Case) -> tuple[float, float] | None:
    """Error and size of one step of gradient descent; None for a case that has nothing to train."""
    inner = case.model()
    inputs = [keras.Input(t.shape[1:], dtype=t.dtype) for t in inner.inputs]
    scaled = [Scale()(t) if real(t) and len(t.shape) > 1 else t for t in inputs]
    sequential = isinstance(inner, keras.Sequential)
    given = scaled[0] if sequential else keras.tree.pack_sequence_as(inner._inputs_struct, scaled)
    outputs = [y for y in keras.tree.flatten(inner(given)) if real(y)]
    if not outputs:
        return None
    model = keras.Model(inputs, outputs)
    if not model.trainable_weights:
        return None
    model.compile(keras.optimizers.SGD(0.05), ["mse"] * len(outputs), run_eagerly=True)
    x = case.inputs(inner, 3)
    y = [keras.random.normal((3, *t.shape[1:]), seed=11 + i).numpy() * 0.5 for i, t in enumerate(outputs)]
    return train_error(model, x, y)


def trained(family: str, case: Case) -> bool:
    return case.name not in KERAS | FLAT and not any(word in case.name for word in RANDOM)


CASES = [
    (family, case)
    for family, cases in FAMILIES.items()
    for i, case in enumerate(c for c in cases if trained(family, c))
    if i % EVERY.get(family, 8) == 0
]


@pytest.mark.parametrize(("family", "case"), CASES, ids=[f"{family}:{case.name}" for family, case in CASES])
def test_takes_keras_own_step(family, case):
    found = step_error(case)
    if found is not None:
        error, change = found
        assert error < 1e-3, f"largest error {error:.2e}"
        assert change > 1e-4


def main() -> None:
    for family, cases in FAMILIES.items():
        found = {c.name: step_error(c) for c in cases if trained(family, c)}
        errors = {name: result[0] for name, result in found.items() if result is not None}
        worst = max(errors, key=errors.get)
        print(f"{family:15} {len(errors):4} cases, largest error {errors[worst]:.1e} ({worst})")


if __name__ == "__main__":
    main()
