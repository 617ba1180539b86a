"""Recurrent layers, unrolled."""

import keras
from keras import layers

from tests.layer_cases.case import Case


def masked(make):
    return lambda: keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(5, 3, mask_zero=True), make()])


CASES = []
for kind in (layers.SimpleRNN, layers.LSTM, layers.GRU):
    for label, options in {
        "last": {},
        "sequences": {"return_sequences": True},
        "backwards": {"go_backwards": True, "return_sequences": True},
        "state": {"return_state": True},
        "no-bias": {"use_bias": False},
    }.items():
        CASES.append(Case(f"{kind.__name__}-{label}", lambda k=kind, o=options: k(4, **o), [(5, 3)]))
    CASES.append(Case(f"{kind.__name__}-masked", masked(lambda k=kind: k(3, return_sequences=True)), high=5))
CASES += [
    Case("gru-reset-before", lambda: layers.GRU(3, reset_after=False), [(4, 2)]),
    Case("lstm-relu", lambda: layers.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid"), [(4, 2)]),
    Case("bidirectional-lstm", lambda: layers.Bidirectional(layers.LSTM(3)), [(4, 2)]),
    Case(
        "bidirectional-gru",
        lambda: layers.Bidirectional(layers.GRU(3, return_sequences=True), merge_mode="sum"),
        [(4, 2)],
    ),
    Case("bidirectional-ave", lambda: layers.Bidirectional(layers.SimpleRNN(3), merge_mode="ave"), [(4, 2)]),
    Case("bidirectional-mul", lambda: layers.Bidirectional(layers.SimpleRNN(3), merge_mode="mul"), [(4, 2)]),
    Case("rnn-cells", lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]), [(4, 2)]),
    Case("rnn-cell", lambda: layers.RNN(layers.SimpleRNNCell(3), return_sequences=True), [(4, 2)]),
    Case("conv-lstm-1d", lambda: layers.ConvLSTM1D(2, 3, padding="same"), [(3, 5, 1)]),
    Case("conv-lstm-2d", lambda: layers.ConvLSTM2D(2, 2, return_sequences=True), [(2, 4, 4, 1)]),
    Case("conv-lstm-3d", lambda: layers.ConvLSTM3D(1, 2), [(2, 3, 3, 2, 1)]),
    Case("time-distributed-dense", lambda: layers.TimeDistributed(layers.Dense(3)), [(4, 2)]),
    Case("time-distributed-conv", lambda: layers.TimeDistributed(layers.Conv2D(2, 2)), [(3, 4, 4, 1)]),
    Case("time-distributed-norm", lambda: layers.TimeDistributed(layers.BatchNormalization()), [(3, 4)]),
]
