"""VGG16 at 32 x 32, ResNet50 at 224 x 224, an encoder layer of BERT-base: predictions."""

import keras
import numpy as np

from benchmarks.suite import data, small
from benchmarks.suite.work import PredictWork, Workload
from private_keras.cluster import Cluster


def resnet50(size: int) -> keras.Model:
    """ResNet50 of keras.applications up to its logits, with random weights and the statistics of a few images.

    A block's last normalisation scales by 1/4, a shortcut's by 0.7, so that sums stay as small as in a trained one.
    """
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    normalizations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalizations:
        layer.momentum = 0.0
        scale = 0.25 if layer.name.endswith("_3_bn") else 0.7 if layer.name.endswith("_0_bn") else 1.0
        layer.gamma.assign(np.full(layer.gamma.shape, scale, np.float32))
    model(images(size, 4), training=True)
    for layer in normalizations:
        layer.momentum = 0.99
    return model


def images(size: int, count: int) -> np.ndarray:
    """Uniform from 0 to 1, float32."""
    return data.rng("images").uniform(size=(count, size, size, 3)).astype(np.float32)


def bert_layer(tiny: bool = False) -> tuple[keras.Model, np.ndarray]:
    """Attention and feed-forward with gelu, each with its residual and normalisation behind it; and an input."""
    p, x, heads = data.bert(tiny)
    _, length, d = x.shape
    inputs = keras.Input((length, d))
    attention = keras.layers.MultiHeadAttention(heads, d // heads)
    first, second = (keras.layers.LayerNormalization(epsilon=1e-3) for _ in range(2))
    up, down = keras.layers.Dense(len(p["b1"]), activation="gelu"), keras.layers.Dense(d)
    middle = first(inputs + attention(inputs, inputs))
    model = keras.Model(inputs, second(middle + down(up(middle))), name="bert-layer")
    split = (d, heads, d // heads)
    attention.set_weights(
        [p[f"{kind}{name}"].reshape(split if kind == "w" else split[1:]) for name in "qkv" for kind in "wb"]
        + [p["wo"].reshape(split[1:] + split[:1]), p["bo"]]
    )
    up.set_weights([p["w1"], p["b1"]])
    down.set_weights([p["w2"], p["b2"]])
    for layer, name in ((first, "1"), (second, "2")):
        layer.set_weights([p[f"g{name}"], p[f"e{name}"]])
    return model, x


def _resnet(_: Cluster, tiny: bool) -> PredictWork:
    size = 64 if tiny else 224
    return PredictWork(resnet50(size), images(size, 1))


def _bert(_: Cluster, tiny: bool) -> PredictWork:
    return PredictWork(*bert_layer(tiny))


WORKLOADS = [
    Workload("vgg16-1", "VGG16 at 32 x 32, predict 1", small.predict("vgg16", 1)),
    Workload("vgg16-32", "VGG16 at 32 x 32, predict 32", small.predict("vgg16", 32), heavy=True),
    Workload("resnet50", "ResNet50 at 224 x 224, predict 1", _resnet, heavy=True),
    Workload("bert-layer", "a layer of BERT-base, sequence 128", _bert, heavy=True),
]
