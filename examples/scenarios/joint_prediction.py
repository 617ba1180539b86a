"""Joint prediction: three providers have a column each of the same people, a fourth party the model, a fifth gets the
result. Whoever writes the program, the analyst, sees none of it.

    python examples/scenarios/joint_prediction.py
"""

import keras
import numpy as np
from parties import main, refused, report, waited_for

import private_keras as pk

PEOPLE = 20
ROLES = {
    "model-owner": ["owner"], "age-provider": ["owner"], "gender-provider": ["owner"], "income-provider": ["owner"],
    "analyst": ["analyst"], "result-receiver": ["receiver"],
}  # fmt: skip


def allowed() -> pk.Policy:
    """What each provider allows: the analyst may compute with its data, and the result goes to the receiver alone."""
    return pk.Policy(use=["analyst"], plans=["predict"], reveal_to=["result-receiver"])


# --- at the providers -------------------------------------------------------------------------------------------------
def provide_model() -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([np.array([[0.8], [-0.3], [1.2]]), np.array([0.25])])
    return model


def provide_age() -> np.ndarray:
    return np.random.default_rng(1).integers(18, 90, (PEOPLE, 1))


def provide_gender() -> np.ndarray:
    return np.random.default_rng(2).integers(0, 2, (PEOPLE, 1))


def provide_income() -> np.ndarray:
    return np.random.default_rng(3).gamma(2.0, 15_000.0, (PEOPLE, 1))


def model_owner() -> None:
    pk.convert(provide_model()).save_shares("credit", policy=allowed())
    report(shared="credit")


def age_provider() -> None:
    age = provide_age() / 100  # prepared in the clear, at its owner
    pk.share(age, name="age", policy=allowed(), ranges=(0.0, 1.2))
    report(shared="age")


def gender_provider() -> None:
    pk.share(provide_gender(), name="gender", policy=allowed(), ranges=(0, 1))
    report(shared="gender")


def income_provider() -> None:
    pk.share(provide_income() / 100_000, name="income", policy=allowed())
    report(shared="income")


# --- at the analyst ---------------------------------------------------------------------------------------------------
def analyst() -> None:
    model = waited_for(lambda: pk.models.load_shares("model-owner/credit"))
    age, gender, income = (
        waited_for(lambda name=name: pk.secret(f"{name}-provider/{name}")) for name in ("age", "gender", "income")
    )
    x = pk.ops.concatenate([age, gender, income], axis=1)
    sent = model.predict(x, batch_size=PEOPLE, verbose=0, to="result-receiver", name="scores")
    report(sent=repr(sent), of=repr(x))
    report(refused=[
        refused(lambda: model.predict(x, verbose=0)),  # the result is the receiver's
        refused(age.reveal), refused(lambda: income.reveal(to="result-receiver")), refused(model.reveal),
    ])  # fmt: skip


# --- at the receiver --------------------------------------------------------------------------------------------------
def result_receiver() -> None:
    scores = waited_for(lambda: pk.receive("analyst/scores"))
    report(scores=scores, highest=int(scores.argmax()))


if __name__ == "__main__":
    main({
        "model-owner": model_owner, "age-provider": age_provider, "gender-provider": gender_provider,
        "income-provider": income_provider, "analyst": analyst, "result-receiver": result_receiver,
    }, ROLES)  # fmt: skip
