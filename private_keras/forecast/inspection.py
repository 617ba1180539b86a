"""All that an owner looks at before allowing a plan, as text."""

from private_keras.forecast.machine import Machine
from private_keras.forecast.network import Network
from private_keras.forecast.seconds import forecast
from private_keras.plan.plan import Plan
from private_keras.plan.provenance import table


def inspected(plan: Plan, network: str | Network = "lan", machine: Machine | None = None) -> str:
    """Inputs and whose they are, steps, openings, what these show of whose inputs, what a run costs, the digest."""
    cost = str(forecast(plan, network, machine))
    return "\n\n".join((plan.describe(), table.as_text(plan), cost, f"digest sha256:{plan.digest}"))
