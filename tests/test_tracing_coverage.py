"""docs/coverage.md says what the tables of rules say, and the cases reach every layer it promises."""

import inspect
import re
from pathlib import Path

import keras
import pytest

from private_keras.tracing.rules import REFUSED, TABLE
from private_keras.tracing.rules.refused import LAYERS_REFUSED
from tests.layer_cases import FAMILIES

PAGE = (Path(__file__).parents[1] / "docs" / "coverage.md").read_text()
ABSTRACT = {keras.layers.Layer, keras.layers.Wrapper, keras.layers.InputLayer}


def section(title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M).group(1)


def first_column(text: str) -> list[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def every_layer() -> dict[type, str]:
    """Public layers by class; a class with several names goes by its own, if it is one of them."""
    names: dict[type, str] = {}
    for name, value in vars(keras.layers).items():
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and value not in ABSTRACT:
            names[value] = value.__name__ if hasattr(keras.layers, value.__name__) else name
    return names


def test_supported_operations_are_those_with_a_rule():
    listed = [
        n for line in section("Operations").splitlines() if line.startswith("- ") for n in re.findall(r"`(\w+)`", line)
    ]
    ruled = {cls.__name__ for cls in TABLE if cls.__module__.startswith("keras.")}
    assert sorted(listed) == sorted(ruled)


def test_refused_operations_are_listed_with_their_advice():
    text = section("Operations that are refused")
    assert sorted(first_column(text)) == sorted(cls.__name__ for cls in REFUSED)
    assert all(advice in text for advice in REFUSED.values())
    assert not set(REFUSED) & set(TABLE)


def test_every_layer_of_keras_is_supported_or_refused():
    supported, refused = first_column(section("Layers")), first_column(section("Layers that are refused"))
    assert sorted(refused) == sorted(cls.__name__ for cls in LAYERS_REFUSED)
    assert not set(supported) & set(refused)
    assert sorted(supported + refused) == sorted(every_layer().values())


def test_refused_layers_are_listed_with_their_advice():
    text = section("Layers that are refused")
    assert all(f"| `{cls.__name__}` | {advice} |" in text for cls, advice in LAYERS_REFUSED.items())


def test_cases_reach_every_supported_layer():
    reached = set()
    for case in (case for cases in FAMILIES.values() for case in cases):
        reached |= {type(layer) for layer in case.model()._flatten_layers()}
    names = every_layer()
    assert set(first_column(section("Layers"))) <= {names[cls] for cls in reached if cls in names}


# Layers named by the issue; each needs three configurations or more. Others are reached at least once.
THRICE = """
Dense EinsumDense Conv1D Conv2D Conv3D DepthwiseConv1D DepthwiseConv2D SeparableConv1D SeparableConv2D
Conv1DTranspose Conv2DTranspose Conv3DTranspose MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D
AveragePooling2D AveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GlobalAveragePooling1D
GlobalAveragePooling2D GlobalAveragePooling3D BatchNormalization LayerNormalization GroupNormalization
RMSNormalization UnitNormalization Embedding Flatten Reshape Permute RepeatVector ZeroPadding1D ZeroPadding2D
ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D Add Subtract Multiply Average
Maximum Minimum Concatenate Dot Activation ReLU LeakyReLU PReLU ELU Softmax Rescaling Normalization SimpleRNN LSTM
GRU Bidirectional TimeDistributed Attention MultiHeadAttention Dropout
""".split()


@pytest.fixture(scope="module")
def configurations() -> dict[str, int]:
    counts: dict[str, int] = {}
    for case in (case for cases in FAMILIES.values() for case in cases):
        for name in {type(layer).__name__ for layer in case.model()._flatten_layers()}:
            counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.parametrize("name", THRICE)
def test_three_configurations(name, configurations):
    assert configurations.get(name, 0) >= 3
