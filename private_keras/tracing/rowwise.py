"""Which recorded operations work on each row by itself, so that a job can compute the rows that it takes, and no more.

What is not listed here is computed for all rows at once: right for anything, dearer.
"""
import copy
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree
from keras.src.ops import core, nn
from keras.src.ops import math as kmath
from keras.src.ops import numpy as knp

from private_keras.tracing.symbols import Settle

ELEMENTWISE = (
    *(
        getattr(knp, name) for name in (
            "Abs", "Absolute", "Add", "Ceil", "Clip", "Copy", "Divide", "DivideNoNan", "Equal", "Exp", "Exp2", "Expm1",
            "Fabs", "Fmax", "Fmin", "Greater", "GreaterEqual", "Less", "LessEqual", "Log", "Log10", "Log1p", "Log2",
            "LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "Maximum", "Minimum", "Multiply", "Negative",
            "NotEqual", "Power", "Reciprocal", "Sign", "Sqrt", "Square", "Subtract", "Tanh", "TrueDivide", "Where",
        )
    ),
    *(
        getattr(nn, name) for name in (
            "Celu", "Elu", "Gelu", "HardShrink", "HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "LogSigmoid",
            "Relu", "Relu6", "Selu", "Sigmoid", "Silu", "SoftShrink", "Softplus", "Softsign", "SparsePlus",
            "SparseSigmoid", "Squareplus", "TanhShrink", "Threshold",
        )
    ),
    core.Cast, core.ConvertToTensor, core.SaturateCast, core.StopGradient, kmath.Erf, kmath.Erfc, kmath.Rsqrt, Settle,
)  # fmt: skip
# They work along axes of their own; along others than the first, each row is by itself.
ALONG = (
    knp.All, knp.Amax, knp.Amin, knp.Any, knp.Argmax, knp.Argmin, knp.CountNonzero, knp.Cumsum, knp.Diff, knp.Flip,
    knp.Max, knp.Mean, knp.Min, knp.Prod, knp.Ptp, knp.Std, knp.Sum, knp.Var, nn.LogSoftmax, nn.Softmax,
    kmath.Logsumexp, knp.Squeeze, knp.Split, core.Unstack,
)  # fmt: skip


def rowwise(node: Any) -> list[bool] | None:
    """For each tensor that a recorded operation takes, whether it is taken by rows, like the result, or as a whole.

    Returns:
        None if the operation does not work on each row by itself.
    """
    rule = next((RULES[kind] for kind in type(node.operation).__mro__ if kind in RULES), None)
    if rule is None or not all(tensor.shape for tensor in (*node.outputs, *node.input_tensors[:1])):
        return None
    by_rows = rule(node)
    if by_rows is None:
        return None
    rows = {tensor.shape[0] for tensor, taken in zip(node.input_tensors, by_rows, strict=True) if taken}
    return by_rows if {tensor.shape[0] for tensor in node.outputs} == rows else None


def is_chain(node: Any) -> bool:
    """Whether an operation puts tensors one below the other: rows of the result are rows of one of them."""
    arrays = [a for a in tree.flatten(node.arguments.args) if not isinstance(a, keras.KerasTensor)]
    return isinstance(node.operation, knp.Concatenate) and not arrays and not (
        node.operation.axis % len(node.outputs[0].shape)
    )


def again(node: Any, replace: Callable[[keras.KerasTensor], Any], rows: int | None = None) -> list[keras.KerasTensor]:
    """Records an operation once more, on other tensors.

    Args:
        replace: the tensor to take for one of the node's.
        rows: how many rows the operands have now; None for as many as before.
    """
    operation = copy.copy(node.operation)
    # The copy is this recording's alone; nodes of the other would grow with each.
    operation._inbound_nodes, operation._outbound_nodes = [], []
    if rows is not None and isinstance(operation, knp.Reshape):
        operation.newshape = (rows, *node.outputs[0].shape[1:])
    args, kwargs = node.arguments.convert(lambda a: replace(a) if isinstance(a, keras.KerasTensor) else a)
    return tree.flatten(operation.symbolic_call(*args, **kwargs))


def _elementwise(node: Any) -> list[bool] | None:
    shape = node.outputs[0].shape
    by_rows = []
    for operand in tree.flatten((node.arguments.args, node.arguments.kwargs)):
        theirs = tuple(getattr(operand, "shape", ()))
        varies = len(theirs) == len(shape) and theirs[:1] != (1,)
        if isinstance(operand, keras.KerasTensor):
            by_rows.append(varies or theirs[:1] == shape[:1] == (1,))
        elif varies:
            return None
    return by_rows if any(by_rows) else None


def _along(node: Any) -> list[bool] | None:
    axis = node.operation.axis
    axes = [axis] if isinstance(axis, int) else axis
    rank = len(node.input_tensors[0].shape)
    return None if axes is None or any(a % rank == 0 for a in axes) else [True]


def _join(node: Any) -> list[bool] | None:
    if any(not isinstance(a, keras.KerasTensor) for a in tree.flatten(node.arguments.args)):
        return None
    return [True] * len(node.input_tensors) if node.operation.axis % len(node.outputs[0].shape) else None


def _insert(node: Any) -> list[bool] | None:
    axis = node.operation.axis
    axes = [axis] if isinstance(axis, int) else axis
    return None if any(a % len(node.outputs[0].shape) == 0 for a in axes) else [True]


def _transpose(node: Any) -> list[bool] | None:
    axes = node.operation.axes
    return [True] if axes is not None and axes[0] % len(axes) == 0 else None


def _get_item(node: Any) -> list[bool] | None:
    """x[:, ...]."""
    key = node.arguments.args[1] if len(node.arguments.args) > 1 else node.arguments.kwargs.get("key")
    first = key[0] if isinstance(key, tuple) and key else None
    parts = key[1:] if isinstance(key, tuple) else ()
    plain = all(p is None or p is Ellipsis or isinstance(p, slice | int | np.integer) for p in parts)
    return [True] if first == slice(None) and plain else None


def _product(node: Any) -> list[bool] | None:
    """Rows of the first operand; one matrix or vector for all."""
    first, second = (tuple(getattr(a, "shape", ())) for a in node.arguments.args[:2])
    if len(first) < 2 or len(second) > 2 or not isinstance(node.arguments.args[0], keras.KerasTensor):
        return None
    return [True, False][: len(node.input_tensors)]


def _pad(node: Any) -> list[bool] | None:
    widths = node.operation.pad_width
    return [True] if len(widths) > 1 and tuple(widths[0]) == (0, 0) and len(node.input_tensors) == 1 else None


RULES: dict[type, Callable[[Any], list[bool] | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(ALONG, _along),
    knp.Concatenate: _join,
    knp.Stack: _join,
    knp.ExpandDims: _insert,
    nn.OneHot: _insert,
    knp.Transpose: _transpose,
    knp.GetItem: _get_item,
    knp.Matmul: _product,
    knp.Dot: _product,
    knp.Pad: _pad,
    knp.Reshape: lambda node: [True],
}
