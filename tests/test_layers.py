"""Every case of every family agrees with Keras on simulated shares."""

import pytest

from tests.layer_cases import FAMILIES
from tests.layer_cases.simulated import run_layer_test

CASES = [(family, case) for family, cases in FAMILIES.items() for case in cases]


@pytest.mark.parametrize(("family", "case"), CASES, ids=[f"{family}:{case.name}" for family, case in CASES])
def test_agrees_with_keras(family, case):
    error = run_layer_test(case)
    assert error <= case.tolerance, f"largest error {error:.2e}"
