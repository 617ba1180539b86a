"""`keras.ops`, unchanged: for `from private_keras.ops import ...`."""
from keras.ops import *  # noqa: F403
