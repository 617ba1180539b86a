"""`keras.datasets`, unchanged: for `from private_keras.datasets import ...`."""
from keras.datasets import *  # noqa: F403
