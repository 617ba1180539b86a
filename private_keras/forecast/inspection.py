"""All that an owner looks at before allowing a plan, as text."""

from private_keras.forecast.machine import Machine
from private_keras.forecast.network import Network
from private_keras.forecast.seconds import forecast
from private_keras.plan.plan import Plan
from private_keras.plan.provenance import table


def inspected(plan: Plan, network: str | Network = "lan", machine: Machine | None = None) -> str:
    """Inputs and whose they are, steps, openings, the digest, what is shown of whose inputs, what a run costs."""
    return "\n\n".join((plan.describe(), table.as_text(plan), str(forecast(plan, network, machine))))
