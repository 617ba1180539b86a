"""Writes `.h5` files as Keras 2.15 (tf.keras) wrote them, which no longer installs beside Keras 3.

Layout and wording follow `hdf5_format.py` of Keras 2.15: layers without "module", initialisers with
it, shapes in `batch_input_shape`, inbound nodes as nested lists, weights named "layer/kernel:0" in the order trainable,
then not trainable.
"""

import json
from pathlib import Path

import h5py
import numpy as np


def initializer(name: str) -> dict:
    config = {"seed": None} if name == "GlorotUniform" else {}
    return {"module": "keras.initializers", "class_name": name, "config": config, "registered_name": None}


def layer(kind: str, name: str, inbound: list | None = None, **config: object) -> dict:
    described = {"class_name": kind, "config": {"name": name, "trainable": True, "dtype": "float32", **config}}
    if inbound is not None:
        described |= {"name": name, "inbound_nodes": [[[source, 0, 0, {}] for source in inbound]] if inbound else []}
    return described


def input_layer(name: str, shape: list, inbound: list | None = None) -> dict:
    described = {
        "class_name": "InputLayer",
        "config": {
            "batch_input_shape": [None, *shape],
            "dtype": "float32",
            "sparse": False,
            "ragged": False,
            "name": name,
        },
    }
    if inbound is not None:
        described |= {"name": name, "inbound_nodes": []}
    return described


def kernel_options() -> dict:
    return {
        "use_bias": True,
        "kernel_initializer": initializer("GlorotUniform"),
        "bias_initializer": initializer("Zeros"),
        "kernel_regularizer": None,
        "bias_regularizer": None,
        "activity_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
    }


def conv2d(name: str, filters: int, inbound: list | None = None, **more: object) -> dict:
    return layer(
        "Conv2D",
        name,
        inbound,
        filters=filters,
        kernel_size=[3, 3],
        strides=[1, 1],
        **{
            "padding": "same",
            "data_format": "channels_last",
            "dilation_rate": [1, 1],
            "groups": 1,
            "activation": "relu",
            **kernel_options(),
            **more,
        },
    )


def depthwise(name: str, inbound: list | None = None, **more: object) -> dict:
    options = {key: value for key, value in kernel_options().items() if not key.startswith("kernel")}
    return layer(
        "DepthwiseConv2D",
        name,
        inbound,
        kernel_size=[3, 3],
        strides=[1, 1],
        **{
            "padding": "valid",
            "data_format": "channels_last",
            "dilation_rate": [1, 1],
            "groups": 1,
            "activation": "linear",
            "depth_multiplier": 1,
            "depthwise_initializer": initializer("GlorotUniform"),
            "depthwise_regularizer": None,
            "depthwise_constraint": None,
            **options,
            **more,
        },
    )


def batch_normalization(name: str, inbound: list | None = None) -> dict:
    return layer(
        "BatchNormalization",
        name,
        inbound,
        axis=[3],
        momentum=0.99,
        epsilon=0.001,
        center=True,
        scale=True,
        beta_initializer=initializer("Zeros"),
        gamma_initializer=initializer("Ones"),
        moving_mean_initializer=initializer("Zeros"),
        moving_variance_initializer=initializer("Ones"),
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
    )


def dense(name: str, units: int, activation: str, inbound: list | None = None, **more: object) -> dict:
    return layer("Dense", name, inbound, units=units, activation=activation, **kernel_options(), **more)


def sequential(layers: list[dict]) -> dict:
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}


def functional(layers: list[dict], inputs: list[str], outputs: list[str]) -> dict:
    return {
        "class_name": "Functional",
        "config": {
            "name": "model",
            "trainable": True,
            "layers": layers,
            "input_layers": [[n, 0, 0] for n in inputs],
            "output_layers": [[n, 0, 0] for n in outputs],
        },
    }


TRAINING = {
    "loss": "categorical_crossentropy",
    "metrics": [["accuracy"]],
    "weighted_metrics": None,
    "loss_weights": None,
    "optimizer_config": {
        "class_name": "Adam",
        "config": {
            "name": "Adam",
            "weight_decay": None,
            "clipnorm": None,
            "global_clipnorm": None,
            "clipvalue": None,
            "use_ema": False,
            "ema_momentum": 0.99,
            "ema_overwrite_frequency": None,
            "jit_compile": False,
            "is_legacy_optimizer": False,
            "learning_rate": 0.0010000000474974513,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "epsilon": 1e-07,
            "amsgrad": False,
        },
    },
}


def write(path: Path, model: dict, weights: dict[str, dict[str, np.ndarray]], training: dict | None = TRAINING) -> None:
    """Writes a file.

    Args:
        path: where.
        model: configuration, from `sequential` or `functional`.
        weights: by layer, then by name ("kernel", ...), in Keras 2's order.
        training: how the model was compiled.
    """
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model).encode()
        if training is not None:
            file.attrs["training_config"] = json.dumps(training).encode()
        group = file.create_group("model_weights")
        names = [described["config"]["name"] for described in model["config"]["layers"]]
        group.attrs["layer_names"] = [name.encode() for name in names]
        group.attrs["backend"] = b"tensorflow"
        group.attrs["keras_version"] = b"2.15.0"
        for name in names:
            saved = weights.get(name, {})
            layer_group = group.create_group(name)
            layer_group.attrs["weight_names"] = [f"{name}/{key}:0".encode() for key in saved]
            for key, value in saved.items():
                layer_group.create_dataset(f"{name}/{key}:0", data=value)
        group.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0)
