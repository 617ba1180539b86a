"""The demo's own functions; `make demo` runs the whole of it."""
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from private_keras.ring import fixedpoint

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "predict_digits.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("predict_digits", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_servers_see_is_the_digit_only_together(example):
    image = example.digits()[1][0]
    masked, mask_of_1, masks = example.seen_by_servers(image)
    np.testing.assert_array_equal(masked - masks, fixedpoint.encode(image, fixedpoint.DEFAULT_FRACTION))
    again = example.seen_by_servers(image)
    for words, other in zip((masked, mask_of_1, masks), again, strict=True):
        assert words.shape == image.shape and not (words == other).any()


def test_the_picture(example, tmp_path):
    example.draw(tmp_path / "digits.png", example.digits()[1][0], 3, np.eye(10)[3])
    assert (tmp_path / "digits.png").read_bytes().startswith(b"\x89PNG")


def test_labels_are_spread_over_the_test_set(example):
    train_images, images, _, labels = example.digits()
    assert train_images.shape[1:] == images.shape[1:] == (8, 8, 1) and set(labels) == set(range(10))
    assert images.min() == 0 and images.max() == 1


TRAINING = {"logistic_regression": 2, "train_digits_cnn": 1, "transfer_learning": 1}


@pytest.mark.parametrize("name", TRAINING)
def test_training_examples_follow_plain_keras(name, tmp_path, monkeypatch, capsys):
    """Each in few epochs, on the simulated cluster: the same arithmetic as on servers."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    spec = importlib.util.spec_from_file_location(name, EXAMPLE.parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    connect = module.pk.connect
    opened = []
    monkeypatch.setattr(module.pk, "connect", lambda: opened.append(connect(protocol="simulate")) or opened[-1])
    try:
        module.main(tmp_path, epochs=TRAINING[name])
    finally:
        opened[-1].close()
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("acc"))
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert abs(float(printed["accuracy in the clear"]) - float(printed["accuracy encrypted"])) < 0.05
