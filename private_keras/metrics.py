"""`keras.metrics`, unchanged: for `from private_keras.metrics import ...`."""
from keras.metrics import *  # noqa: F403
