"""Pairs of private and plain models with the same weights, and data, for tests of training."""

import keras
import numpy as np

import private_keras as pk

RNG = np.random.default_rng(7)


def pair(*layers, shape=(5,), optimizer=None, loss="binary_crossentropy", metrics=("accuracy",), seed=0, **options):
    """A private model and Keras' own with the same weights, compiled alike; layers as (class name, *args)."""
    keras.utils.set_random_seed(seed)
    models = []
    for kind, source in ((pk.Sequential, pk.layers), (keras.Sequential, keras.layers)):
        made = [getattr(source, name)(*args) for name, *args in layers]
        models.append(kind([keras.Input(shape), *made]))
    private, plain = models
    plain.set_weights(private.get_weights())
    for model in models:
        chosen = (optimizer or (lambda: keras.optimizers.SGD(0.1)))()
        model.compile(chosen, loss, metrics=list(metrics), **options)
    return private, plain


def logistic(**options):
    """Two classes, five features."""
    return pair(("Dense", 4, "relu"), ("Dense", 1, "sigmoid"), **options)


def two_classes(rows=100, features=5, seed=3):
    """Features, and which side of a plane they are on."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)).astype("float32")
    return x, (x @ rng.normal(size=(features, 1)) > 0).astype("float32")


def distance(private, plain):
    """Largest difference of two models' weights."""
    return max(np.abs(a - b).max() for a, b in zip(private.get_weights(), plain.get_weights(), strict=True))


def assert_alike(history, expected, tolerance=1e-3):
    """Histories with the same names and, but for rounding, the same values."""
    assert set(history.history) == set(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_allclose(history.history[name], values, atol=tolerance, err_msg=name)


class Events:
    """What is shared and run on a cluster, in order."""

    def __init__(self, cluster, monkeypatch):
        self.names = []
        self.plans = []
        self.loops = []
        for name in ("share", "run"):
            original = getattr(cluster, name)
            monkeypatch.setattr(cluster, name, self._recorded(name, original))

    def _recorded(self, name, original):
        def call(*args, **kwargs):
            self.names.append(name)
            if name == "run":
                self.plans.append(args[0])
                self.loops.append(kwargs["loop"].steps if kwargs.get("loop") else 1)
            return original(*args, **kwargs)

        return call

    def trained(self):
        """Steps of each job of training."""
        return [n for plan, n in zip(self.plans, self.loops, strict=True) if plan.kind == "train"]

    def opened(self):
        """Names of all outputs that were opened, over all runs."""
        return [item.name for plan in self.plans for item in plan.outputs if item.receivers]
