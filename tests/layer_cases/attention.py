"""Attention."""

import keras
from keras import layers

from tests.layer_cases.case import Case


def self_attention(**options):
    def make():
        x = keras.Input((4, 6))
        return keras.Model(x, layers.MultiHeadAttention(2, 3)(x, x, **options))

    return make


def cross():
    x, y = keras.Input((4, 6)), keras.Input((5, 4))
    return keras.Model([x, y], layers.MultiHeadAttention(2, 3, value_dim=5, output_shape=7)(x, y))


def group_query():
    x = keras.Input((4, 6))
    return keras.Model(x, layers.GroupQueryAttention(4, 4, 2)(x, x))


CASES = [
    Case("multi-head", self_attention()),
    Case("multi-head-causal", self_attention(use_causal_mask=True)),
    Case("multi-head-cross", cross),
    Case("group-query", group_query),
    Case("attention", lambda: layers.Attention(), [(3, 4), (5, 4)]),
    Case("attention-scale", lambda: layers.Attention(use_scale=True), [(3, 4), (5, 4)]),
    Case("attention-concat", lambda: layers.Attention(score_mode="concat"), [(3, 4), (5, 4)]),
    Case("additive", lambda: layers.AdditiveAttention(), [(3, 4), (5, 4)]),
]
