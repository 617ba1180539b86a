"""Polynomials in place of activations: cheaper over slow networks, and only good inside a stated interval."""
from collections.abc import Sequence
from dataclasses import dataclass

from keras import ops

Approximation = str | Sequence[float] | None


@dataclass(frozen=True)
class Polynomial:
    """Coefficients of powers of x / domain, lowest first; `error` is the largest on [-domain, domain]."""

    domain: float
    coefficients: tuple[float, ...]
    error: float

    def __call__(self, x):
        """Evaluates even and odd powers by Horner's rule in x^2; grows without bound outside the domain."""
        u = ops.multiply(x, 1 / self.domain)
        if len(self.coefficients) <= 2:
            return _linear(u, self.coefficients)
        square = ops.multiply(u, u)
        even, odd = _horner(square, self.coefficients[0::2]), _horner(square, self.coefficients[1::2])
        return ops.add(ops.multiply(u, odd), even)


# Minimax fits.
_FITS = {
    "relu": Polynomial(5, (0.169052, 2.5, 4.825748, 0.0, -2.663853), 0.17),
    "sigmoid": Polynomial(5, (0.5, 1.146746, 0.0, -1.26428, 0.0, 0.622631), 0.012),
    "tanh": Polynomial(3, (0.0, 2.621372, 0.0, -3.383705, 0.0, 1.798069), 0.041),
}


def polynomial(approximation: Approximation, activation: str) -> Polynomial | None:
    """What computes an activation: None for the exact function.

    Args:
        approximation: None, "polynomial" for the fit that comes with the package (relu: degree 4 on [-5, 5], error
            0.17; sigmoid: degree 5 on [-5, 5], error 0.012; tanh: degree 5 on [-3, 3], error 0.041), or coefficients of
            powers of x, lowest first.
        activation: name of the function that is approximated.

    Raises:
        ValueError: an unknown approximation, or "polynomial" for a function without a fit.
    """
    if approximation is None:
        return None
    if approximation == "polynomial" and activation in _FITS:
        return _FITS[activation]
    if isinstance(approximation, str) or not len(approximation):
        raise ValueError(
            f"approximation of {activation} must be None, a list of coefficients, lowest degree first, or 'polynomial' "
            "for "
            f"one of {sorted(_FITS)}. Received: {approximation!r}"
        )
    return Polynomial(1.0, tuple(float(c) for c in approximation), 0.0)


def _linear(x, coefficients: Sequence[float]):
    constant, slope = (*coefficients, 0.0)[:2]
    return ops.add(ops.multiply(x, slope), constant)


def _horner(x, coefficients: Sequence[float]):
    """sum_i coefficients[i] x^i; a number if it is constant."""
    *rest, last = coefficients
    y = last
    for c in reversed(rest):
        y = ops.add(ops.multiply(x, y), c)
    return y
