"""What a plan will cost on a network, before it runs: rounds and bytes exactly, seconds as a forecast."""

from private_keras.forecast.machine import Machine
from private_keras.forecast.measure import measure_machine
from private_keras.forecast.network import NETWORKS, Network
from private_keras.forecast.seconds import forecast
from private_keras.forecast.table import Forecast, LayerCost

__all__ = ["NETWORKS", "Forecast", "LayerCost", "Machine", "Network", "forecast", "measure_machine"]
