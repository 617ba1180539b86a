"""What tracing promises beyond right numbers: what is folded, named, kept secret, refused, and left as it was."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from private_keras.errors import InputError, UnsupportedError
from private_keras.tracing import trace, unsupported
from tests.layer_cases import models as zoo
from tests.layer_cases.case import randomise
from tests.layer_cases.simulated import plain, predict


def functional(shape, *inner, dtype="float32"):
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in inner:
        x = layer(x)
    model = keras.Model(inputs, x)
    randomise(model)
    return model


def steps(plan):
    return [step.op for step in plan.steps]


def test_dense_relu_is_a_product_a_bias_and_a_relu_that_truncates():
    plan = trace(functional((6,), layers.Dense(4, activation="relu")), 2).plan
    assert steps(plan) == ["matmul", "add", "relu"]
    # A product that is truncated anyway is held twice: one bit more to truncate.
    assert plan.steps[0].attributes["twice"] and plan.steps[2].attributes["truncate"] == 19


@pytest.mark.parametrize(
    "linear",
    [
        lambda: layers.Conv2D(3, 3),
        lambda: layers.Conv2D(3, 3, use_bias=False),
        lambda: layers.DepthwiseConv2D(3),
        lambda: layers.Conv2DTranspose(3, 3),
        lambda: layers.Dense(3),
        lambda: layers.SeparableConv2D(3, 3),
    ],
)
def test_batch_normalization_folds_into_what_precedes_it(linear):
    alone = trace(functional((6, 6, 2), linear()), 1).plan
    followed = trace(functional((6, 6, 2), linear(), layers.BatchNormalization()), 1).plan
    products = [op for op in steps(followed) if op in ("conv", "matmul", "multiply")]
    assert len(products) == len([op for op in steps(alone) if op in ("conv", "matmul", "multiply")])


def test_a_product_used_twice_is_not_folded_twice():
    x = inputs = keras.Input((5,))
    y = layers.Dense(4)(x)
    model = keras.Model(inputs, [y, layers.BatchNormalization()(y)])
    plan = trace(model, 1).plan
    assert steps(plan).count("matmul") == 1


def test_an_activation_in_between_prevents_folding():
    model = functional((5,), layers.Dense(4, activation="relu"), layers.BatchNormalization())
    assert steps(trace(model, 1).plan).count("multiply") == 1


def test_skip_connections_add_before_they_truncate():
    plan = trace(zoo.resnet(), 1).plan
    assert steps(plan).count("truncate") == 1  # before softmax; all others are in a relu


def test_names_of_weights_do_not_depend_on_the_batch():
    model = functional((6, 6, 1), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(4))
    one, many = trace(model, 1), trace(model, 5)
    assert one.weights.keys() == many.weights.keys()
    assert all(np.array_equal(one.weights[name], many.weights[name]) for name in one.weights)
    assert one.plan.digest != many.plan.digest


def test_a_plan_does_not_depend_on_the_values_of_weights():
    """Else the plan, which every server reads, would tell something about them."""
    model = functional((6, 6, 2), layers.Conv2D(3, 3), layers.BatchNormalization(), layers.PReLU(), zoo.Block(4))
    before = trace(model, 2).plan.to_json()
    for weight in model.weights:
        weight.assign(np.random.default_rng(11).uniform(0.5, 1.5, weight.shape) * 3)
    assert trace(model, 2).plan.to_json() == before


@pytest.mark.parametrize("name", ["mlp", "resnet", "custom", "transformer", "subclassed"])
def test_constants_of_a_plan_are_small_and_never_weights(name):
    model = getattr(zoo, name)()
    randomise(model)
    plan = trace(model, 1).plan
    sizes = [np.prod(s.attributes["shape"], dtype=int) for s in plan.steps if s.op == "constant"]
    longest = max((w.size for w in model.get_weights()), default=0)
    assert max(sizes, default=0) < longest
    assert {i.owner for i in plan.inputs} == {"client", "model-owner"}


def test_arrays_in_a_layer_are_shared_like_weights():
    table = np.linspace(-1, 1, 4, dtype="float32")
    traced = trace(functional((4,), layers.Lambda(lambda x: x * table)), 1)
    assert any(np.allclose(w, table) for w in traced.weights.values())


def test_statistics_of_normalization_are_shared_like_weights():
    layer = layers.Normalization(mean=[1.0, 2.0], variance=[3.0, 4.0])
    traced = trace(functional((2,), layer), 1)
    assert len(traced.weights) == 2
    assert not any(s.op == "constant" for s in traced.plan.steps)


@pytest.mark.parametrize(("axis", "shape"), [(None, (3,)), (-1, (1,)), (-1, (3,))])
def test_statistics_learnt_from_data_are_no_constants(axis, shape):
    layer = layers.Normalization(axis=axis)
    layer.adapt(np.random.default_rng(0).normal(3.7, 2.0, (50, *shape)).astype("float32"))
    traced = trace(functional(shape, layer), 1)
    assert "constant" not in steps(traced.plan)
    assert len(traced.weights) == 2


def test_the_model_is_left_as_it_was():
    model = zoo.nested()
    inner = [layer for layer in model._flatten_layers() if layer.weights]
    held = [(vars(layer).copy(), len(layer._inbound_nodes)) for layer in inner]
    trace(model, 2)
    with pytest.raises(UnsupportedError):
        trace(functional((3,), layers.Dense(2), layers.Lambda(ops.floor)), 2)
    for layer, (attributes, nodes) in zip(inner, held, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert all(vars(layer)[k] is v for k, v in attributes.items() if isinstance(v, keras.Variable))
        assert len(layer._inbound_nodes) == nodes
    keras.models.clone_model(model)


def test_embedding_takes_integers_below_its_size():
    spec = trace(functional((5,), layers.Embedding(11, 3), dtype="int32"), 2).inputs[0]
    assert (spec.shape, spec.fraction, spec.low, spec.high) == ((2, 5), 0, 0, 11)


def test_embedding_of_a_float_input_takes_integers():
    spec = trace(functional((5,), layers.Embedding(7, 3)), 2).inputs[0]
    assert (spec.dtype, spec.fraction, spec.low, spec.high) == ("float32", 0, 0, 7)


def test_an_input_used_as_index_and_as_number_is_refused():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Concatenate()([layers.Flatten()(layers.Embedding(5, 2)(x)), x]))
    assert "cast from real numbers" in unsupported(model)[0].message


def test_outputs_keep_keras_structure_and_names():
    traced = trace(zoo.dictionaries(), 2)
    assert set(traced.outputs) == {"class", "amount"}
    assert [spec.keras_name for spec in traced.inputs] == ["second", "first"] or [
        spec.keras_name for spec in traced.inputs
    ] == ["first", "second"]
    assert sorted(traced.output_names) == sorted(o.name for o in traced.plan.outputs)


def test_a_subclassed_model_of_dictionaries():
    model = zoo.Parts()
    arrays = {k: np.random.default_rng(i).normal(size=(2, 4)).astype("float32") for i, k in enumerate("uv")}
    expected = model(arrays)
    traced = trace(model, 2)
    results = dict(zip(traced.output_names, predict(traced, [arrays["u"], arrays["v"]]), strict=True))
    for key, value in expected.items():
        assert np.abs(results[traced.outputs[key]] - np.asarray(value)).max() < 1e-3


def test_shared_layers_share_weights_once():
    traced = trace(zoo.shared(), 2)
    assert len(traced.weights) == 2


def test_owners_and_receivers_are_in_the_plan():
    plan = trace(zoo.mlp(), 1, input_owner="a", weight_owner="b", receivers=("c",)).plan
    assert {i.owner for i in plan.inputs} == {"a", "b"}
    assert plan.outputs[0].receivers == ("c",)


def test_fast_is_coarser_and_shorter_than_accurate():
    model = functional((5,), layers.Activation("gelu"))
    pieces = {a: len(trace(model, 1, approximation=a).plan.steps[0].attributes["knots"]) for a in ("accurate", "fast")}
    assert pieces["fast"] < pieces["accurate"]
    x = np.linspace(-4, 4, 15, dtype="float32").reshape(3, 5)
    error = np.abs(predict(trace(model, 3, approximation="fast"), [x])[0] - plain(model, [x])[0]).max()
    assert 1e-4 < error <= 2e-3


def test_every_step_knows_its_layer():
    plan = trace(zoo.transformer(), 1).plan
    assert all(step.layer for step in plan.steps if step.op not in ("constant", "shift"))
    assert any("attention" in step.layer for step in plan.steps if step.op == "softmax")


@pytest.mark.parametrize("fraction", [14, 16, 20])
def test_other_fractions(fraction):
    model = functional((6,), layers.Dense(5, activation="relu"), layers.Dense(3))
    x = np.random.default_rng(0).normal(size=(2, 6)).astype("float32")
    error = np.abs(predict(trace(model, 2, fraction=fraction), [x])[0] - plain(model, [x])[0]).max()
    assert error < 20 * 2.0**-fraction


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, None])
def test_bad_batch_sizes(batch_size):
    with pytest.raises(InputError, match="batch_size"):
        trace(zoo.mlp(), batch_size)


def test_bad_approximation():
    with pytest.raises(InputError, match="accurate, fast"):
        trace(zoo.mlp(), 1, approximation="rough")
