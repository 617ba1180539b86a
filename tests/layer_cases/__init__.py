"""Cases of layer conformance, by family: each is a layer or model with its inputs, and how far from Keras it may be.

They are data, so that the simulated arithmetic and a real cluster can run the same cases.
"""

from tests.layer_cases import (
    activations,
    attention,
    convolution,
    core,
    merging,
    models,
    normalization,
    operations,
    pooling,
    recurrent,
    reshaping,
)

FAMILIES = {
    "core": core.CASES,
    "convolution": convolution.CASES,
    "pooling": pooling.CASES,
    "normalization": normalization.CASES,
    "reshaping": reshaping.CASES,
    "merging": merging.CASES,
    "activations": activations.CASES,
    "attention": attention.CASES,
    "recurrent": recurrent.CASES,
    "operations": operations.CASES,
    "models": models.CASES,
}
