"""The client side of a cluster: connect, share, run, and the embedded cluster on this machine."""

from private_keras.cluster.cluster import NetworkCluster
from private_keras.cluster.current import connect, current, disconnect
from private_keras.cluster.handle import Handle, Stats, Traffic
from private_keras.cluster.interface import Cluster
from private_keras.cluster.local import LocalCluster
from private_keras.cluster.loop import Loop, PublicValue, Rows
from private_keras.cluster.putting import Column
from private_keras.cluster.results import deliveries, receive
from private_keras.cluster.simulated import SimulatedCluster
from private_keras.cluster.stock import Item, about

__all__ = [
    "Cluster", "Column", "Handle", "Item", "LocalCluster", "Loop", "NetworkCluster", "PublicValue", "Rows",
    "SimulatedCluster", "Stats", "Traffic", "about", "connect", "current", "deliveries", "disconnect", "receive",
]  # fmt: skip
