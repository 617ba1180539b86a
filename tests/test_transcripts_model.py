"""A whole model run twice on the very same shares: every message is new, and the helper hears nothing either time."""

import secrets

import keras
import numpy as np

from private_keras.protocols.trio import make_party
from private_keras.ring import default_kernel
from private_keras.ring.fixedpoint import decode, encode
from private_keras.server.execute import Program
from private_keras.tracing import trace
from private_keras.transport.memory import memory_network, run_parties

U = np.uint64
LIMIT = 6.0


def model() -> keras.Model:
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="sigmoid"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def run(program, material):
    """(prediction, received payloads by party in order)."""
    keys = {pair: secrets.token_bytes(16) for pair in [(0, 1), (0, 2), (1, 2)]}
    channels = memory_network(3, record=True)
    parties = [
        make_party(i, default_kernel(), channels[i], {j: keys[min(i, j), max(i, j)] for j in range(3) if j != i})
        for i in range(3)
    ]
    outputs = run_parties(
        [
            lambda i=i: program.run(
                parties[i], {name: parties[i].masked(*parts[i]) for name, parts in material.items()}
            )
            for i in range(3)
        ]
    )
    (name,) = outputs[0]
    received = [
        [p.ravel().view(U) for _, channel in sorted(channels[i].items()) for _, p in channel.log] for i in range(3)
    ]
    return decode(sum(o[name] for o in outputs), 18), received


def shared(x: np.ndarray) -> list[tuple]:
    l0, l1 = (default_kernel().random(secrets.token_bytes(16), 0, x.size).reshape(x.shape) for _ in range(2))
    return [(x + l0 + l1, l0), (x + l0 + l1, l1), (l0 - l1, l0 + l1)]


def test_same_model_same_shares_twice():
    plain = model()
    traced = trace(plain, 64)
    program = Program(traced.plan)
    x = np.random.default_rng(0).uniform(0, 1, (64, 8, 8, 1))
    values = {**traced.weights, traced.input_names[0]: x}
    material = {
        i.name: shared(encode(np.asarray(values[i.name]), i.type.fraction).reshape(i.type.shape))
        for i in traced.plan.inputs
    }
    first, heard = run(program, material)
    second, heard_again = run(program, material)
    assert np.abs(first - plain.predict(x, verbose=0)).max() < 2e-3
    assert np.abs(first - second).max() < 1e-3
    assert not heard[2] and not heard_again[2], "the helper received something"
    for party in (0, 1):
        assert len(heard[party]) == len(heard_again[party]) > 20
        for a, b in zip(heard[party], heard_again[party], strict=True):
            # Bits that agree between two independent uniform strings: half of them.
            bits = np.unpackbits((a ^ b).view(np.uint8))
            assert abs(bits.mean() - 0.5) * 2 * np.sqrt(bits.size) < LIMIT


def test_messages_do_not_depend_on_inputs_or_weights():
    """All-zero and large inputs and weights: lengths agree message by message, and all bits are fair coins."""
    traced = trace(model(), 64)
    program = Program(traced.plan)
    lengths = []
    for scale in (0.0, 1.0):
        rng = np.random.default_rng(1)
        material = {
            i.name: shared(encode(scale * rng.uniform(-3, 3, i.type.shape), i.type.fraction))
            for i in traced.plan.inputs
        }
        _, heard = run(program, material)
        lengths.append([[len(message) for message in messages] for messages in heard])
        for message in heard[0] + heard[1]:
            bits = np.unpackbits(message.view(np.uint8))
            assert abs(bits.mean() - 0.5) * 2 * np.sqrt(bits.size) < LIMIT
    assert lengths[0] == lengths[1]
