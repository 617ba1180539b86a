"""Files written once, by Keras 2, Keras 3 and private_keras, still load and predict what they did."""

from pathlib import Path

import numpy as np
import pytest

import private_keras as pk
from private_keras import cluster as clusters

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = np.load(GOLDEN / "expected.npz")
FILES = sorted(path.name for path in [*GOLDEN.glob("*.h5"), *GOLDEN.glob("*.keras")])


def test_all_files_are_there():
    assert {key.split(":")[0] for key in EXPECTED.files} == set(FILES) and len(FILES) == 5


@pytest.mark.parametrize("name", FILES)
def test_golden(name):
    model = pk.models.load_model(GOLDEN / name)
    x, y = EXPECTED[f"{name}:x"], EXPECTED[f"{name}:y"]
    assert y.std(axis=0).max() > 0.01
    np.testing.assert_allclose(model(x), y, atol=1e-5)
    pk.connect(protocol="simulate")
    try:
        np.testing.assert_allclose(model.predict(x, verbose=0), y, atol=1e-3)
    finally:
        clusters.disconnect()
