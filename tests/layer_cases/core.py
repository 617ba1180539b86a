"""Dense and its kin, embeddings, and layers that only arrange."""

import keras
from keras import layers

from tests.layer_cases.case import Case

CASES = [
    Case("dense", lambda: layers.Dense(5), [(7,)]),
    Case("dense-relu", lambda: layers.Dense(6, activation="relu"), [(9,)]),
    Case("dense-3d-no-bias", lambda: layers.Dense(4, use_bias=False), [(3, 6)]),
    Case("dense-one", lambda: layers.Dense(1, activation="sigmoid"), [(30,)]),
    Case("einsum-dense", lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d"), [(3, 4)]),
    Case(
        "einsum-dense-heads",
        lambda: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"),
        [(3, 4)],
    ),
    Case(
        "einsum-dense-two",
        lambda: layers.EinsumDense("abcd,cde->abe", output_shape=(None, 3), bias_axes="e"),
        [(3, 2, 4)],
    ),
    Case("einsum-dense-ellipsis", lambda: layers.EinsumDense("...x,xy->...y", output_shape=4, bias_axes="y"), [(2, 3)]),
    Case("embedding", lambda: layers.Embedding(11, 4), [(5,)], high=11),
    Case("embedding-mask", lambda: layers.Embedding(6, 3, mask_zero=True), [(4,)], high=6),
    Case(
        "embedding-float-input",
        lambda: keras.Sequential([keras.Input((4,)), layers.Embedding(9, 5), layers.GlobalAveragePooling1D()]),
        high=9,
    ),
    Case("embedding-2d", lambda: layers.Embedding(5, 2), [(2, 3)], high=5),
    Case("identity", lambda: layers.Identity(), [(3,)]),
    Case("lambda", lambda: layers.Lambda(lambda x: x * 2.0 - 1.0), [(3,)]),
    Case("dropout", lambda: layers.Dropout(0.5), [(6,)]),
    Case("spatial-dropout", lambda: layers.SpatialDropout2D(0.5), [(3, 3, 2)]),
    Case("gaussian-noise", lambda: layers.GaussianNoise(0.5), [(6,)]),
    Case("gaussian-dropout", lambda: layers.GaussianDropout(0.5), [(6,)]),
    Case("alpha-dropout", lambda: layers.AlphaDropout(0.5), [(6,)]),
    Case("activity-regularization", lambda: layers.ActivityRegularization(0.1), [(6,)]),
    Case("masking", lambda: layers.Masking(0.0), [(4, 2)]),
]
