"""Changes of weights are noticed by whatever means they are made; weights that stay are not read again."""
import keras
import numpy as np
import pytest
import tensorflow as tf

from private_keras.models import weights
from private_keras.models.weights import Weights


def model_of(dtype="float32"):
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, dtype=dtype), keras.layers.Dense(2, dtype=dtype)])


def by_assign(model):
    kernel = model.layers[0].kernel
    kernel.assign(kernel + 1)


def in_place(model):
    model.layers[0].kernel.value.assign_add(tf.ones((3, 4)))


def one_element(model):
    model.layers[0].kernel.value.scatter_nd_add([[0, 0]], [5.0])


def in_a_function(model):
    tf.function(lambda: model.layers[1].bias.value.assign_sub(tf.ones(2)))()


def by_training(model):
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)


def by_set_weights(model):
    model.set_weights([w + 1 for w in model.get_weights()])


def by_a_layer_more(model):
    model.add(keras.layers.Dense(1))


CHANGES = [by_assign, in_place, one_element, in_a_function, by_training, by_set_weights, by_a_layer_more]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed_once(change):
    model = model_of()
    seen = Weights(model)
    assert seen.changed() and not seen.changed()
    for _ in range(3):
        change(model)
        assert seen.changed() and not seen.changed()


def test_a_change_and_back_is_none():
    model = model_of()
    seen = Weights(model)
    seen.changed()
    before = model.get_weights()
    by_assign(model)
    model.set_weights(before)
    assert not seen.changed()


def test_an_array_that_was_assigned_may_be_written_to():
    """Where TensorFlow shares the memory of an array with a tensor, the variable has its own."""
    model = model_of()
    raw = np.zeros(4 * 12 + 64, np.uint8)  # aligned as TensorFlow likes it
    array = raw[-raw.ctypes.data % 64 :][:48].view(np.float32).reshape(3, 4)
    model.layers[0].kernel.assign(tf.convert_to_tensor(array))
    seen = Weights(model)
    seen.changed()
    array += 1
    np.testing.assert_array_equal(model.layers[0].kernel, np.zeros((3, 4)))
    assert not seen.changed()


def test_weights_that_stay_are_not_read(monkeypatch):
    model = model_of()
    seen = Weights(model)
    seen.changed()
    read = []
    monkeypatch.setattr(weights, "_digest", lambda variable: read.append(variable) or b"new")
    assert not seen.changed() and not read
    by_assign(model)
    assert seen.changed() and len(read) == 1


def test_types_without_buffers_are_compared_by_value():
    model = model_of("bfloat16")
    seen = Weights(model)
    assert seen.changed() and not seen.changed()
    kernel = model.layers[0].kernel
    kernel.assign(kernel + 1)
    assert seen.changed() and not seen.changed()


def test_no_public_view_of_a_variable_can_be_written_to():
    """A write past TensorFlow would not be noticed."""
    tensor = keras.Variable(np.ones(8, "float32")).value.value()
    here = weights._buffer(keras.Variable(np.ones(8, "float32")))
    views = [np.asarray(memoryview(tensor)), np.asarray(tensor), np.from_dlpack(tensor)]
    assert len({view.ctypes.data for view in views}) == 1, "all are of the variable's own memory"
    for view in (here, *views):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 2.0
    tensor.numpy()[0] = 2.0
    assert views[0][0] == 1.0, "a copy"
