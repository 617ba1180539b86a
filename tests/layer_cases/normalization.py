"""Normalisation, rescaling, and how they fold into products."""

import keras
import numpy as np
from keras import layers

from tests.layer_cases.case import Case


def stacked(shape, *inner):
    return lambda: keras.Sequential([keras.Input(shape), *(make() for make in inner)])


CASES = [
    Case("batch", lambda: layers.BatchNormalization(), [(5,)]),
    Case("batch-images", lambda: layers.BatchNormalization(epsilon=1e-2), [(4, 4, 3)]),
    Case("batch-axis-1", lambda: layers.BatchNormalization(axis=1), [(3, 4, 2)]),
    Case("batch-plain", lambda: layers.BatchNormalization(center=False, scale=False), [(3, 4)]),
    Case("batch-no-scale", lambda: layers.BatchNormalization(scale=False), [(5,)]),
    Case("batch-no-center", lambda: layers.BatchNormalization(center=False), [(5,)]),
    Case("batch-after-dense", stacked((6,), lambda: layers.Dense(5), layers.BatchNormalization)),
    Case("batch-after-conv", stacked((5, 5, 2), lambda: layers.Conv2D(3, 3), layers.BatchNormalization, layers.ReLU)),
    Case("batch-after-depthwise", stacked((5, 5, 2), lambda: layers.DepthwiseConv2D(3), layers.BatchNormalization)),
    Case("batch-after-transpose", stacked((4, 4, 2), lambda: layers.Conv2DTranspose(3, 2), layers.BatchNormalization)),
    Case(
        "batch-twice",
        stacked((5,), lambda: layers.Dense(4, use_bias=False), layers.BatchNormalization, layers.BatchNormalization),
    ),
    Case("layer", lambda: layers.LayerNormalization(), [(8,)]),
    Case("layer-3d", lambda: layers.LayerNormalization(epsilon=1e-5), [(3, 6)]),
    Case("layer-axes", lambda: layers.LayerNormalization(axis=(1, 2)), [(4, 5)]),
    Case("layer-axis-1", lambda: layers.LayerNormalization(axis=1, center=False), [(5, 3)]),
    Case("layer-wide", lambda: layers.LayerNormalization(), [(2, 64)], scale=4.0),
    Case("layer-plain", lambda: layers.LayerNormalization(center=False, scale=False), [(10,)]),
    Case("group", lambda: layers.GroupNormalization(2), [(4, 4, 4)]),
    Case("group-instance", lambda: layers.GroupNormalization(-1), [(4, 4, 3)]),
    Case("group-1d", lambda: layers.GroupNormalization(3, epsilon=1e-5), [(5, 6)]),
    Case("rms", lambda: layers.RMSNormalization(), [(8,)]),
    Case("rms-3d", lambda: layers.RMSNormalization(epsilon=1e-3), [(3, 5)]),
    Case("rms-axis", lambda: layers.RMSNormalization(axis=-1), [(2, 3, 4)]),
    Case("unit", lambda: layers.UnitNormalization(), [(6,)]),
    Case("unit-axis", lambda: layers.UnitNormalization(axis=1), [(3, 4)]),
    Case("unit-axes", lambda: layers.UnitNormalization(axis=(1, 2)), [(3, 4)]),
    Case("rescaling", lambda: layers.Rescaling(1 / 255), [(5,)], scale=100.0),
    Case("rescaling-offset", lambda: layers.Rescaling(1 / 127.5, offset=-1.0), [(4, 4, 3)], scale=100.0),
    Case(
        "rescaling-dense", stacked((6,), lambda: layers.Dense(4), lambda: layers.Rescaling(0.3, offset=2.0)), scale=2.0
    ),
    Case(
        "rescaling-conv", stacked((5, 5, 1), lambda: layers.Rescaling(1 / 16), lambda: layers.Conv2D(2, 3)), scale=16.0
    ),
    Case("normalization", lambda: layers.Normalization(mean=[0.5, -1.0, 2.0], variance=[0.5, 2.0, 4.0]), [(3,)]),
    Case("normalization-number", lambda: layers.Normalization(axis=None, mean=0.5, variance=2.0), [(4, 2)]),
    Case(
        "normalization-invert", lambda: layers.Normalization(mean=[0.5, -1.0], variance=[0.5, 2.0], invert=True), [(2,)]
    ),
    Case("spectral", lambda: layers.SpectralNormalization(layers.Dense(4)), [(5,)]),
]


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    return keras.Sequential([keras.Input((4,)), layer, layers.Dense(3)])


CASES.append(Case("normalization-adapted", adapted))
