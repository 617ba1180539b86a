"""Recurrent layers, unrolled over time in `keras.ops`: Keras runs them in loops of the backend, which cannot be traced.

For Keras' own cells the input's part of all gates is one product for all steps, and gates of one activation are one
call, so that a step in time costs two activations and two products one after the other.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops, tree

from private_keras.errors import UnsupportedError
from private_keras.tracing.rules.noise import scaled_mask
from private_keras.tracing.symbols import Settle, zeros

Step = Callable[[Any, list[Any] | None], tuple[Any, list[Any]]]


def recurrent(
    layer: layers.RNN, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
) -> Any:
    """Any recurrent layer with a fixed number of steps."""
    if layer.stateful:
        raise UnsupportedError(
            "stateful=True keeps state between calls, which prediction on shares does not. Use stateful=False and pass "
            "initial_state."
        )
    if training:
        sequences = _dropped(layer.cell, sequences)
    if tree.is_nested(mask):
        mask = tree.flatten(mask)[0]
    steps = sequences.shape[1]
    state = None if initial_state is None else tree.flatten(initial_state)
    xs, step = _cell(layer, sequences)
    order = reversed(range(steps)) if layer.go_backwards else range(steps)
    outputs: list[Any] = []
    for t in order:
        before = state
        output, state = step(xs[t], state)
        if mask is not None:
            output, state = _hold(mask[:, t], output, state, outputs, before)
        outputs.append(output)
    last, sequence = outputs[-1], None
    if layer.return_sequences:
        sequence = ops.stack(outputs, axis=1)
    if mask is not None and layer.zero_output_for_mask:
        if layer.return_sequences:
            turned = ops.flip(mask, axis=1) if layer.go_backwards else mask
            sequence = ops.where(_widen(turned, sequence), sequence, 0.0)
        last = ops.where(_widen(mask[:, 0 if layer.go_backwards else -1], last), last, 0.0)
    result = sequence if layer.return_sequences else last
    return (result, *state) if layer.return_state else result


def _dropped(cell: Any, sequences: Any) -> Any:
    """Dropout of a cell's inputs: one mask for all steps, as Keras draws it."""
    parts = getattr(cell, "cells", [cell])
    if any(getattr(c, "recurrent_dropout", 0) for c in parts):
        raise UnsupportedError("recurrent_dropout is not available in training on shares; use `dropout`.")
    rate = getattr(cell, "dropout", 0)
    if any(getattr(c, "dropout", 0) for c in parts) and type(cell).call not in CELLS:
        raise UnsupportedError("dropout in this cell cannot be trained on shares; put a Dropout layer before it.")
    if not rate:
        return sequences
    mask = scaled_mask((sequences.shape[0], 1, sequences.shape[2]), rate, cell.seed) if rate < 1 else 0.0
    return ops.multiply(sequences, mask)


def bidirectional(
    layer: layers.Bidirectional, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
) -> Any:
    """One layer forwards, one backwards, and their outputs merged."""
    half = 0 if initial_state is None else len(initial_state) // 2
    states = (None, None) if initial_state is None else (initial_state[:half], initial_state[half:])
    forth, back = (
        inner(sequences, initial_state=state, mask=mask)
        for inner, state in zip((layer.forward_layer, layer.backward_layer), states, strict=True)
    )
    final: tuple[Any, ...] = ()
    if layer.return_state:
        final = (*forth[1:], *back[1:])
        forth, back = forth[0], back[0]
    if layer.return_sequences:
        back = ops.flip(back, axis=1)
    if layer.merge_mode is None:
        return (forth, back, *final)
    merged = {
        "concat": lambda: ops.concatenate([forth, back], axis=-1),
        "sum": lambda: forth + back,
        "ave": lambda: (forth + back) * 0.5,
        "mul": lambda: forth * back,
    }[layer.merge_mode]()
    return (merged, *final) if layer.return_state else merged


def _hold(
    mask: Any, output: Any, state: list[Any], outputs: list[Any], before: list[Any] | None
) -> tuple[Any, list[Any]]:
    """Where the mask is off, the output and the state of the step before."""
    earlier = outputs[-1] if outputs else 0.0
    kept = [0.0] * len(state) if before is None else before
    held = [ops.where(_widen(mask, s), s, k) for s, k in zip(state, kept, strict=True)]
    return ops.where(_widen(mask, output), output, earlier), held


def _widen(mask: Any, like: Any) -> Any:
    return ops.reshape(mask, (*mask.shape, *[1] * (len(like.shape) - len(mask.shape))))


def _cell(layer: layers.RNN, sequences: Any) -> tuple[list[Any], Step]:
    """What the steps get, and the step; a state of None is all zeros."""
    cell = layer.cell
    # A cell with a `call` of its own is called, whatever it derives from.
    maker = CELLS.get(type(cell).call)
    if maker is not None:
        return maker(cell, sequences)

    empty = layer.get_initial_state(batch_size=sequences.shape[0])

    def step(x: Any, state: list[Any] | None) -> tuple[Any, list[Any]]:
        start = [zeros(s.shape) for s in tree.flatten(empty)] if state is None else state
        output, after = cell(x, tree.pack_sequence_as(empty, start))
        return output, tree.flatten(after)

    return [sequences[:, t] for t in range(sequences.shape[1])], step


def _projected(sequences: Any, kernel: Any, bias: Any | None) -> list[Any]:
    z = ops.matmul(sequences, kernel)
    z = z if bias is None else ops.add(z, bias)
    return [z[:, t] for t in range(sequences.shape[1])]


def _lstm(cell: layers.LSTMCell, sequences: Any) -> tuple[list[Any], Step]:
    units = cell.units

    def step(z: Any, state: list[Any] | None) -> tuple[Any, list[Any]]:
        if state is not None:
            z = ops.add(z, ops.matmul(state[0], cell.recurrent_kernel))
        z = Settle()(z)
        gates = cell.recurrent_activation(ops.concatenate([z[:, : 2 * units], z[:, 3 * units :]], axis=-1))
        new = ops.multiply(gates[:, :units], cell.activation(z[:, 2 * units : 3 * units]))
        carry = new if state is None else ops.add(ops.multiply(gates[:, units : 2 * units], state[1]), new)
        output = ops.multiply(gates[:, 2 * units :], cell.activation(carry))
        return output, [output, carry]

    return _projected(sequences, cell.kernel, cell.bias if cell.use_bias else None), step


def _gru(cell: layers.GRUCell, sequences: Any) -> tuple[list[Any], Step]:
    units = cell.units
    bias, inner = (cell.bias, None) if cell.use_bias else (None, None)
    if cell.use_bias and cell.reset_after:
        bias, inner = cell.bias[0], cell.bias[1]

    def step(z: Any, state: list[Any] | None) -> tuple[Any, list[Any]]:
        h = None if state is None else state[0]
        kernel = cell.recurrent_kernel
        columns = slice(None) if cell.reset_after else slice(0, 2 * units)
        rest = None if h is None else ops.matmul(h, kernel[:, columns])
        if inner is not None:
            rest = ops.broadcast_to(inner, z.shape) if rest is None else ops.add(rest, inner)
        first = z[:, : 2 * units]
        gates = cell.recurrent_activation(first if rest is None else ops.add(first, rest[:, : 2 * units]))
        update, reset = gates[:, :units], gates[:, units:]
        candidate = z[:, 2 * units :]
        if cell.reset_after and rest is not None:
            candidate = ops.add(candidate, ops.multiply(reset, rest[:, 2 * units :]))
        elif h is not None:
            candidate = ops.add(candidate, ops.matmul(ops.multiply(reset, h), kernel[:, 2 * units :]))
        candidate = cell.activation(candidate)
        # update * h + (1 - update) * candidate with one product.
        output = ops.add(
            candidate, ops.multiply(update, ops.negative(candidate) if h is None else ops.subtract(h, candidate))
        )
        return output, [output]

    return _projected(sequences, cell.kernel, bias), step


def _simple(cell: layers.SimpleRNNCell, sequences: Any) -> tuple[list[Any], Step]:
    def step(z: Any, state: list[Any] | None) -> tuple[Any, list[Any]]:
        if state is not None:
            z = ops.add(z, ops.matmul(state[0], cell.recurrent_kernel))
        output = cell.activation(z)
        return output, [output]

    return _projected(sequences, cell.kernel, cell.bias if cell.use_bias else None), step


CELLS: dict[Any, Callable[..., tuple[list[Any], Step]]] = {
    layers.LSTMCell.call: _lstm,
    layers.GRUCell.call: _gru,
    layers.SimpleRNNCell.call: _simple,
}
RULES: dict[type[keras.Layer], Callable[..., Any]] = {layers.RNN: recurrent, layers.Bidirectional: bidirectional}
