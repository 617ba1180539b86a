"""`keras.optimizers`, unchanged: for `from private_keras.optimizers import ...`."""
from keras.optimizers import *  # noqa: F403
