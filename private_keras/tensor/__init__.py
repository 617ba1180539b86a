"""Secret tensors: arrays that their owner has shared on a cluster, to be used as data.

    x, y = pk.share(features), pk.share(labels)
    model.fit(x[:400], y[:400], validation_data=(x[400:], y[400:]))
"""
from private_keras.tensor.column import Column, Part, spliced
from private_keras.tensor.named import forget, forget_policies, resolve, secret, set_policy, shared
from private_keras.tensor.secret import SecretTensor
from private_keras.tensor.sharing import share
from private_keras.tensor.writing import together

__all__ = [
    "Column", "Part", "SecretTensor", "forget", "forget_policies", "resolve", "secret", "set_policy", "share", "shared",
    "spliced", "together",
]  # fmt: skip
