"""Gradients of every primitive, against central differences and in fixed point."""
import pytest

from private_keras.plan.gradients import RULES, UNFOLDED
from private_keras.plan.gradients.check import check_gradients
from private_keras.plan.primitives import TABLE
from tests.gradient_zoo import CASES


def test_every_primitive_has_a_rule_and_a_case():
    assert set(TABLE) <= set(RULES) | set(UNFOLDED)
    assert {name.split()[0] for name in CASES} >= set(TABLE) - {"random", "conv"}


@pytest.mark.parametrize("name", CASES)
def test_central_differences(name):
    build, inputs, fractions = CASES[name]
    errors = check_gradients(build, inputs, fractions=fractions, tolerance=2e-5)
    assert set(errors) == set(inputs)
