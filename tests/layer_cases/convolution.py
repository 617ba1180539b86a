"""Convolutions."""

from keras import layers

from tests.layer_cases.case import Case

CASES = [
    Case("conv1d", lambda: layers.Conv1D(4, 3), [(8, 3)]),
    Case("conv1d-same-strides", lambda: layers.Conv1D(4, 3, strides=2, padding="same", activation="relu"), [(7, 3)]),
    Case("conv1d-causal-dilation", lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2), [(8, 2)]),
    Case("conv1d-groups", lambda: layers.Conv1D(6, 2, groups=3, use_bias=False), [(6, 3)]),
    Case("conv2d", lambda: layers.Conv2D(4, 3), [(6, 5, 2)]),
    Case(
        "conv2d-same-strides",
        lambda: layers.Conv2D(3, (3, 2), strides=(2, 1), padding="same", activation="relu"),
        [(7, 6, 2)],
    ),
    Case("conv2d-dilation", lambda: layers.Conv2D(3, 3, dilation_rate=2, padding="same"), [(7, 7, 2)]),
    Case("conv2d-groups", lambda: layers.Conv2D(4, 3, groups=2), [(5, 5, 4)]),
    Case("conv2d-even-same", lambda: layers.Conv2D(3, 4, strides=3, padding="same"), [(8, 8, 1)]),
    Case("conv3d", lambda: layers.Conv3D(2, 2), [(4, 4, 4, 2)]),
    Case("conv3d-same-strides", lambda: layers.Conv3D(3, 3, strides=2, padding="same"), [(5, 4, 5, 1)]),
    Case("conv3d-dilation", lambda: layers.Conv3D(2, 2, dilation_rate=2, activation="relu"), [(5, 5, 5, 1)]),
    Case("depthwise1d", lambda: layers.DepthwiseConv1D(3), [(7, 3)]),
    Case(
        "depthwise1d-same", lambda: layers.DepthwiseConv1D(3, strides=2, padding="same", depth_multiplier=2), [(7, 2)]
    ),
    Case("depthwise1d-no-bias", lambda: layers.DepthwiseConv1D(2, use_bias=False, activation="relu"), [(6, 2)]),
    Case("depthwise2d", lambda: layers.DepthwiseConv2D(3), [(6, 6, 3)]),
    Case("depthwise2d-multiplier", lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), [(5, 5, 2)]),
    Case("depthwise2d-strides", lambda: layers.DepthwiseConv2D(2, strides=2, activation="relu"), [(6, 6, 2)]),
    Case("depthwise2d-dilation", lambda: layers.DepthwiseConv2D(2, dilation_rate=2, padding="same"), [(6, 6, 2)]),
    Case("separable1d", lambda: layers.SeparableConv1D(4, 3), [(7, 3)]),
    Case("separable1d-same", lambda: layers.SeparableConv1D(4, 3, strides=2, padding="same"), [(7, 3)]),
    Case(
        "separable1d-multiplier", lambda: layers.SeparableConv1D(4, 2, depth_multiplier=2, activation="relu"), [(6, 2)]
    ),
    Case("separable2d", lambda: layers.SeparableConv2D(4, 3), [(6, 6, 3)]),
    Case("separable2d-same", lambda: layers.SeparableConv2D(4, 3, strides=2, padding="same"), [(7, 7, 2)]),
    Case(
        "separable2d-multiplier", lambda: layers.SeparableConv2D(3, 3, depth_multiplier=2, use_bias=False), [(5, 5, 2)]
    ),
    Case("conv1d-transpose", lambda: layers.Conv1DTranspose(3, 3), [(5, 2)]),
    Case("conv1d-transpose-same", lambda: layers.Conv1DTranspose(3, 3, strides=2, padding="same"), [(5, 2)]),
    Case("conv1d-transpose-strides", lambda: layers.Conv1DTranspose(2, 2, strides=3, activation="relu"), [(4, 2)]),
    Case("conv2d-transpose", lambda: layers.Conv2DTranspose(3, 3), [(4, 4, 2)]),
    Case("conv2d-transpose-same", lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same"), [(4, 4, 2)]),
    Case("conv2d-transpose-even", lambda: layers.Conv2DTranspose(2, 4, strides=(2, 3), padding="same"), [(4, 3, 2)]),
    Case(
        "conv2d-transpose-output",
        lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1),
        [(4, 4, 2)],
    ),
    Case(
        "conv2d-transpose-valid-output", lambda: layers.Conv2DTranspose(2, 3, strides=3, output_padding=2), [(3, 3, 2)]
    ),
    Case("conv2d-transpose-small", lambda: layers.Conv2DTranspose(2, 1, strides=3), [(3, 3, 2)]),
    Case("conv3d-transpose", lambda: layers.Conv3DTranspose(2, 2), [(3, 3, 3, 2)]),
    Case("conv3d-transpose-same", lambda: layers.Conv3DTranspose(2, 3, strides=2, padding="same"), [(2, 3, 2, 1)]),
    Case("conv3d-transpose-strides", lambda: layers.Conv3DTranspose(2, 2, strides=2, use_bias=False), [(2, 2, 2, 2)]),
]
