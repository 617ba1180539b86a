"""Operations that Keras does itself, but does not record on symbolic tensors. They compute what Keras computes."""

from collections.abc import Sequence
from typing import Any

import keras
from keras.src.ops import nn
from keras.src.ops.operation_utils import compute_conv_output_shape


class GroupedConv(nn.Conv):
    """`keras.ops.conv` infers no shape for a kernel of several groups."""

    def compute_output_spec(self, inputs: keras.KerasTensor, kernel: keras.KerasTensor) -> keras.KerasTensor:
        shape = compute_conv_output_shape(
            tuple(inputs.shape),
            kernel.shape[-1],
            tuple(kernel.shape[:-2]),
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )
        return keras.KerasTensor(shape, dtype=inputs.dtype)


class BatchNorm(nn.BatchNorm):
    """`keras.ops.batch_normalization` infers no shape where there is an offset and no scale."""

    def compute_output_spec(self, x: keras.KerasTensor, *_: Any) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class _Adaptive:
    """`keras.ops` infers one axis too many for channels last."""

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        last = self.data_format == "channels_last"
        lead, end = ((inputs.shape[0],), (inputs.shape[-1],)) if last else (inputs.shape[:2], ())
        return keras.KerasTensor((*lead, *self.output_size, *end), dtype=inputs.dtype)


class AdaptiveAverage(_Adaptive, nn.AdaptiveAveragePool):
    """`keras.ops.adaptive_average_pool`."""


class AdaptiveMax(_Adaptive, nn.AdaptiveMaxPool):
    """`keras.ops.adaptive_max_pool`."""


class Standardize(keras.Operation):
    """x over the statistics of the batch at hand: (x - mean) / sqrt(variance + epsilon), mean and variance."""

    def __init__(self, axes: Sequence[int], epsilon: float):
        super().__init__()
        self.axes = tuple(axes)
        self.epsilon = epsilon

    def call(self, x: Any) -> Any:
        mean, variance = keras.ops.moments(x, self.axes, keepdims=True)
        normal = keras.ops.multiply(keras.ops.subtract(x, mean), keras.ops.rsqrt(keras.ops.add(variance, self.epsilon)))
        return normal, keras.ops.squeeze(mean, self.axes), keras.ops.squeeze(variance, self.axes)

    def compute_output_spec(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, ...]:
        rest = tuple(n for a, n in enumerate(x.shape) if a not in self.axes)
        return (keras.KerasTensor(x.shape, dtype=x.dtype), *(keras.KerasTensor(rest, dtype=x.dtype) for _ in range(2)))


class Random(keras.Operation):
    """Public random numbers, other ones in each step of training.

    Args:
        shape: of the tensor.
        distribution: "bernoulli", "uniform" in [0, 1) or "normal", of mean 0 and variance 1.
        seed: that the layer asks for; None for the run's.
        probability: of 1, where the distribution is "bernoulli".
    """

    def __init__(self, shape: Sequence[int], distribution: str, seed: int | None, probability: float = 0.0):
        super().__init__()
        self.shape = tuple(int(n) for n in shape)
        self.distribution = distribution
        self.seed = seed
        self.probability = probability

    def call(self) -> Any:
        raise NotImplementedError("drawn by the servers alone")

    def compute_output_spec(self) -> keras.KerasTensor:
        return keras.KerasTensor(self.shape)


class Settle(keras.Operation):
    """The same tensor, at the working fraction: truncated once before several operations take parts of it."""

    def call(self, x: Any) -> Any:
        return x

    def compute_output_spec(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class Zeros(keras.Operation):
    """Zeros that are a symbolic tensor: some operations look at one argument only to decide whether they record."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)

    def call(self) -> Any:
        return keras.ops.zeros(self.shape)

    def compute_output_spec(self) -> keras.KerasTensor:
        return keras.KerasTensor(self.shape)


def zeros(shape: Sequence[int]) -> keras.KerasTensor:
    """A symbolic tensor of zeros."""
    return Zeros(shape).symbolic_call()
