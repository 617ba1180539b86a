"""Secret tensors: arrays that their owner has shared on a cluster, to be used as data.

    x, y = pk.share(features), pk.share(labels)
    model.fit(x[:400], y[:400], validation_data=(x[400:], y[400:]))
"""
from private_keras.tensor.column import Column, Part, spliced
from private_keras.tensor.secret import SecretTensor
from private_keras.tensor.sharing import share

__all__ = ["Column", "Part", "SecretTensor", "share", "spliced"]
