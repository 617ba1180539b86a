"""`keras.callbacks`, unchanged: for `from private_keras.callbacks import ...`."""
from keras.callbacks import *  # noqa: F403
