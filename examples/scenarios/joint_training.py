"""Joint training: two hospitals have different patients; a model owner trains on the rows of both.

    python examples/scenarios/joint_training.py
"""

import numpy as np
from parties import main, refused, report, waited_for
from private_training import BATCH, EPOCHS, TRAINED, build_model, provide_data

import private_keras as pk

FIRST = 150  # patients of the first hospital
ROLES = {"data-owner-0": ["owner"], "data-owner-1": ["owner"], "model-owner": ["analyst"]}


# --- at the data owners -----------------------------------------------------------------------------------------------
def provide_part(rows: slice) -> tuple[np.ndarray, np.ndarray]:
    x, y = provide_data()
    return x[:TRAINED][rows], y[:TRAINED][rows]


def _share(rows: slice) -> None:
    x, y = provide_part(rows)
    allowed = pk.Policy(use=["model-owner"], plans=["fit"], reveal_to=["model-owner"], until="2100-01-01")
    pk.share(x, name="patients/x", policy=allowed)
    pk.share(y, name="patients/y", policy=allowed)
    report(shared=x.shape)


def data_owner_0() -> None:
    _share(slice(None, FIRST))


def data_owner_1() -> None:
    _share(slice(FIRST, None))


# --- at the model owner -----------------------------------------------------------------------------------------------
def model_owner() -> None:
    def both(name: str) -> pk.SecretTensor:
        owners = ("data-owner-0", "data-owner-1")
        return pk.ops.concatenate([waited_for(lambda o=o: pk.secret(f"{o}/{name}")) for o in owners], axis=0)

    x, y = both("patients/x"), both("patients/y")
    model = build_model(pk)
    history = model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
    report(refused=[refused(x.reveal), refused(lambda: model.predict(x, verbose=0))])
    report(loss=history.history["loss"], weights=[w.ravel() for w in model.reveal().get_weights()])


if __name__ == "__main__":
    main({"data-owner-0": data_owner_0, "data-owner-1": data_owner_1, "model-owner": model_owner}, ROLES)
