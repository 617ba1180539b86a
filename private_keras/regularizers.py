"""`keras.regularizers`, unchanged: for `from private_keras.regularizers import ...`."""
from keras.regularizers import *  # noqa: F403
