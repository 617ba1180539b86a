"""`keras.initializers`, unchanged: for `from private_keras.initializers import ...`."""
from keras.initializers import *  # noqa: F403
