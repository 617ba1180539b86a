"""`keras.constraints`, unchanged: for `from private_keras.constraints import ...`."""
from keras.constraints import *  # noqa: F403
