"""Dense and its kin, embeddings, and layers that only arrange."""

import keras
from keras import layers

from tests.layer_cases.case import Case


def both_ways():
    x = keras.Input((3,), dtype="int32")
    layer = layers.ReversibleEmbedding(7, 4)
    return keras.Model(x, layer(layer(x), reverse=True))


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
    Case("dropout-seed", lambda: layers.Dropout(0.9, seed=1), [(2, 3)]),
    Case("dropout-noise-shape", lambda: layers.Dropout(0.2, noise_shape=(None, 1, 3)), [(2, 3)]),
    Case("spatial-dropout", lambda: layers.SpatialDropout2D(0.5), [(3, 3, 2)]),
    Case("gaussian-noise", lambda: layers.GaussianNoise(0.5), [(6,)]),
    Case("gaussian-dropout", lambda: layers.GaussianDropout(0.5), [(6,)]),
    Case("alpha-dropout", lambda: layers.AlphaDropout(0.5), [(6,)]),
    Case("activity-regularization", lambda: layers.ActivityRegularization(0.1), [(6,)]),
    Case("spatial-dropout-1d", lambda: layers.SpatialDropout1D(0.5), [(3, 2)]),
    Case("spatial-dropout-3d", lambda: layers.SpatialDropout3D(0.5), [(2, 2, 2, 2)]),
    Case("reversible-embedding", lambda: layers.ReversibleEmbedding(7, 4), [(5,)], high=7),
    Case("reversible-both-ways", both_ways, high=7),
    Case("one-hot", lambda: layers.CategoryEncoding(5, "one_hot"), [(1,)], high=5),
    Case("multi-hot", lambda: layers.CategoryEncoding(9, "multi_hot"), [(4,)], high=9),
    Case("count", lambda: layers.CategoryEncoding(4, "count"), [(6,)], high=4),
    Case("discretization", lambda: layers.Discretization([-0.5, 0.25, 1.0]), [(6,)]),
    Case("discretization-one-hot", lambda: layers.Discretization([-0.5, 0.5], output_mode="one_hot"), [(3,)]),
    Case("discretization-count", lambda: layers.Discretization([-0.5, 0.5], output_mode="count"), [(7,)]),
    Case("multi-hot-operation", lambda: lambda x: keras.ops.multi_hot(x, 6), [(4,)], high=6),
    Case("masking", lambda: layers.Masking(0.0), [(4, 2)]),
]
