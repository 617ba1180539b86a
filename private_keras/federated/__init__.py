"""Federated averaging: data owners train a Keras model on their own machines, and the model's owner receives the mean
of their updates, which the servers take on shares. See docs/federated.md.
"""
from private_keras.federated.client import Client
from private_keras.federated.server import Server

__all__ = ["Client", "Server"]
