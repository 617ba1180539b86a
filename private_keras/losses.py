"""`keras.losses`, unchanged: for `from private_keras.losses import ...`."""
from keras.losses import *  # noqa: F403
