"""Models for people: layers, shapes, and where the weights are. Never a value."""
import html
import math

import keras

from private_keras.models.training.jobs import Jobs

CLIENT = "at the client"
SERVERS = "on the servers, as shares"
PUBLIC = "public"
_HEADER = ("layer", "type", "output shape", "parameters", "weights")


def as_html(model: keras.Model, jobs: Jobs | None) -> str:
    """A table with a row for each layer, every text escaped.

    Args:
        jobs: None if the model has not been on shares yet.
    """
    secret: set[int] = set()
    if jobs is not None:
        secret = {id(held.state.variable) for held in jobs.holdings.current().values() if held.secret}
    public = _public(model)
    rows = [
        (name, type(part).__name__, _shapes(part), _count(part.weights), _places(part.weights, secret, public))
        for name, part in (*((layer.name, layer) for layer in model.layers), ("in all", model))
    ]
    body = "".join(_line(row, "td") for row in rows)
    state = "compiled" if model.compiled else "not compiled"
    title = f"Model {model.name} ({state}{'' if model.built else ', not built'})"
    return f"<h4>{html.escape(title)}</h4><table>{_line(_HEADER, 'th')}{body}</table>"


def _line(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _count(weights: list[keras.Variable]) -> str:
    return f"{sum(math.prod(weight.shape) for weight in weights):,}"


def _shapes(layer: keras.Layer) -> str:
    """Of its outputs; "?" for one that was not called on symbolic tensors."""
    try:
        outputs = getattr(layer, "outputs", None) or layer.output  # models do not have both
    except (AttributeError, ValueError):
        return "?"
    return ", ".join(str(tuple(tensor.shape)) for tensor in keras.tree.flatten(outputs))


def _places(weights: list[keras.Variable], secret: set[int], public: set[int]) -> str:
    """Where weights are; how many in each place if there are several."""
    found = [SERVERS if id(w) in secret else PUBLIC if id(w) in public else CLIENT for w in weights]
    places = sorted(set(found))
    return "; ".join(place if len(places) == 1 else f"{found.count(place)} {place}" for place in places) or "-"


def _public(model: keras.Model) -> set[int]:
    """Of the variables in layers that are declared public."""
    layers = (model, *model._flatten_layers(include_self=False))
    return {id(variable) for layer in layers if getattr(layer, "public", False) for variable in layer.weights}
