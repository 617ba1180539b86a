"""`keras.activations`, unchanged: for `from private_keras.activations import ...`."""
from keras.activations import *  # noqa: F403
