"""`keras.utils`, unchanged: for `from private_keras.utils import ...`."""
from keras.utils import *  # noqa: F403
