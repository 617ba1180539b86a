"""Pooling over windows and over everything."""

from keras import layers

from tests.layer_cases.case import Case

SHAPES = {1: (7, 3), 2: (6, 7, 2), 3: (4, 5, 4, 2)}
KINDS = {
    1: (layers.MaxPooling1D, layers.AveragePooling1D, layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D),
    2: (layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D),
    3: (layers.MaxPooling3D, layers.AveragePooling3D, layers.GlobalMaxPooling3D, layers.GlobalAveragePooling3D),
}

CASES = []
for space, (largest, average, *everything) in KINDS.items():
    for kind in (largest, average):
        for label, options in {
            "valid": {"pool_size": 2},
            "same": {"pool_size": 3, "strides": 2, "padding": "same"},
            "overlap": {"pool_size": 3, "strides": 1},
            "same-one": {"pool_size": 2, "strides": 1, "padding": "same"},
        }.items():
            CASES.append(Case(f"{kind.__name__}-{label}", lambda k=kind, o=options: k(**o), [SHAPES[space]]))
    for kind in everything:
        for label, shape, options in (
            ("plain", SHAPES[space], {}),
            ("keepdims", SHAPES[space], {"keepdims": True}),
            ("one", (*[1] * space, 4), {}),
        ):
            CASES.append(Case(f"{kind.__name__}-{label}", lambda k=kind, o=options: k(**o), [shape]))
CASES.append(Case("rectangle", lambda: layers.AveragePooling2D((3, 2), strides=(1, 2), padding="same"), [(5, 5, 2)]))
CASES.append(Case("adaptive-average-2d", lambda: layers.AdaptiveAveragePooling2D(3), [(7, 5, 2)]))
CASES.append(Case("adaptive-average-1d", lambda: layers.AdaptiveAveragePooling1D(2), [(6, 2)]))
CASES.append(Case("adaptive-max-2d", lambda: layers.AdaptiveMaxPooling2D(3), [(7, 5, 2)]))
CASES.append(Case("adaptive-average-3d", lambda: layers.AdaptiveAveragePooling3D(2), [(3, 4, 5, 2)]))
CASES.append(Case("adaptive-max-3d", lambda: layers.AdaptiveMaxPooling3D((1, 2, 3)), [(3, 4, 5, 2)]))
CASES.append(Case("adaptive-max-1d", lambda: layers.AdaptiveMaxPooling1D(2), [(6, 2)]))
