"""Layers of several inputs."""

from keras import layers

from tests.layer_cases.case import Case

TWO, THREE, IMAGES = [(4,), (4,)], [(3, 2)] * 3, [(3, 3, 2), (1, 1, 2)]
CASES = []
for kind in (layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum):
    for label, shapes in (("two", TWO), ("three", THREE), ("broadcast", IMAGES)):
        CASES.append(Case(f"{kind.__name__}-{label}", lambda k=kind: k(), shapes))
for label, shapes in (("two", TWO), ("matrix", [(3, 2), (3, 2)]), ("broadcast", IMAGES)):
    CASES.append(Case(f"Subtract-{label}", lambda: layers.Subtract(), shapes))
CASES += [
    Case("concatenate", lambda: layers.Concatenate(), [(3,), (2,)]),
    Case("concatenate-axis-1", lambda: layers.Concatenate(axis=1), [(2, 3), (4, 3)]),
    Case("concatenate-three", lambda: layers.Concatenate(), [(2, 2, 1)] * 3),
    Case("dot", lambda: layers.Dot(axes=1), [(5,), (5,)]),
    Case("dot-matrix", lambda: layers.Dot(axes=(2, 1)), [(3, 4), (4, 2)]),
    Case("dot-normalize", lambda: layers.Dot(axes=1, normalize=True), [(5,), (5,)]),
]
