"""Attention as one operation, as MultiHeadAttention calls it."""

from typing import Any

import numpy as np
from keras.src.ops import nn

from private_keras.tracing import arithmetic, shapes
from private_keras.tracing.arithmetic import public, value_of
from private_keras.tracing.lowering import Lowering
from private_keras.tracing.rules.comparison import choose
from private_keras.tracing.values import Value

FAR_BELOW = -32768.0  # exp of it is 0, and it is exact and short in fixed point


def dot_product_attention(
    lo: Lowering,
    op: nn.DotProductAttention,
    query: Value,
    key: Value,
    value: Value,
    bias: Any = None,
    mask: Any = None,
    scale: Any = None,
) -> Value:
    """softmax(query . key * scale + bias) . value for (batch, length, heads, size); fewer key heads are repeated."""
    if op.attn_logits_soft_cap is not None:
        raise lo.refuse("attention with a soft cap on its logits", "leave out attn_logits_soft_cap.")
    heads, size = query.shape[2], query.shape[3]
    if heads > key.shape[2]:
        repeated = np.repeat(np.arange(key.shape[2]), heads // key.shape[2])
        key, value = shapes.gather(lo, key, repeated, 2), shapes.gather(lo, value, repeated, 2)
    factor = 1 / np.sqrt(size) if scale is None else scale
    scaled = lo.at(arithmetic.multiply(lo, query, value_of(factor)))
    rows = shapes.transpose(lo, scaled, [0, 2, 1, 3])
    logits: Value = lo.product_step("matmul", lo.operand(rows), lo.operand(shapes.transpose(lo, key, [0, 2, 3, 1])))
    if bias is not None:
        logits = arithmetic.add(lo, logits, value_of(bias))
    if op.is_causal:
        below = np.tril(np.ones(logits.shape[-2:]))
        logits = choose(lo, public(below), logits, public(np.float64(FAR_BELOW)))
    if mask is not None:
        logits = choose(lo, value_of(mask), logits, public(np.float64(FAR_BELOW)))
    weights = lo.step("softmax", lo.at(logits), axis=3)
    mixed = lo.product_step("matmul", weights, lo.operand(shapes.transpose(lo, value, [0, 2, 1, 3])))
    return shapes.transpose(lo, mixed, [0, 2, 1, 3])


RULES = {nn.DotProductAttention: dot_product_attention}
