"""`Sequential`, `Model` and what `keras.models` has beside them."""
from private_keras.forecast import Forecast, Machine, Network
from private_keras.models.check import Check
from private_keras.models.classes import Model, Sequential
from private_keras.models.convert import clone_model, convert
from private_keras.models.load import load_model, load_shares, model_from_json
from private_keras.models.planned import Plans, plans
from private_keras.models.private import PrivateModel
from private_keras.models.save import save_model
from private_keras.models.training.secret import SecretWeights

__all__ = [
    "Check", "Forecast", "Machine", "Model", "Network", "Plans", "PrivateModel", "SecretWeights", "Sequential",
    "clone_model", "convert", "load_model", "load_shares", "model_from_json", "plans", "save_model",
]
