"""Layers of Keras' `rnn` family: one cell after the other, so rounds grow with the length of the sequence."""
import keras

from private_keras.layers.secure import SecureLayer, secure


@secure
class Bidirectional(SecureLayer, keras.layers.Bidirectional):
    """Costs what the wrapped layer costs, twice."""


@secure
class ConvLSTM1D(SecureLayer, keras.layers.ConvLSTM1D):
    """Per step: two convolutions, three sigmoids, two tanh."""


@secure
class ConvLSTM2D(SecureLayer, keras.layers.ConvLSTM2D):
    """Per step: two convolutions, three sigmoids, two tanh."""


@secure
class ConvLSTM3D(SecureLayer, keras.layers.ConvLSTM3D):
    """Per step: two convolutions, three sigmoids, two tanh."""


@secure
class GRU(SecureLayer, keras.layers.GRU):
    """Per step: two products, two sigmoids, one tanh."""


@secure
class GRUCell(SecureLayer, keras.layers.GRUCell):
    """Two products, two sigmoids, one tanh."""


@secure
class LSTM(SecureLayer, keras.layers.LSTM):
    """Per step: two products, three sigmoids, two tanh."""


@secure
class LSTMCell(SecureLayer, keras.layers.LSTMCell):
    """Two products, three sigmoids, two tanh."""


@secure
class RNN(SecureLayer, keras.layers.RNN):
    """Costs what its cell costs, once per step."""


@secure
class SimpleRNN(SecureLayer, keras.layers.SimpleRNN):
    """Per step: two products and the activation."""


@secure
class SimpleRNNCell(SecureLayer, keras.layers.SimpleRNNCell):
    """Two products and the activation."""


@secure
class StackedRNNCells(SecureLayer, keras.layers.StackedRNNCells):
    """Costs what its cells cost."""


@secure
class TimeDistributed(SecureLayer, keras.layers.TimeDistributed):
    """Costs what the wrapped layer costs on all steps at once."""
