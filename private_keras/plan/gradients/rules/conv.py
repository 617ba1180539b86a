"""Gradients of convolutions are convolutions: of the gradient with the flipped kernel, and of the input with it."""
from collections.abc import Sequence

from private_keras.plan.gradients.records import Gradient
from private_keras.plan.gradients.rules.shape import part
from private_keras.plan.gradients.tape import Tape
from private_keras.plan.records import Step


def _conv(tape: Tape, step: Step, g: Gradient, wanted: Sequence[bool]) -> list[Gradient | None]:
    return [
        _by_input(tape, step, g) if wanted[0] else None,
        _by_kernel(tape, step, g) if wanted[1] else None,
    ]


def _by_input(tape: Tape, step: Step, g: Gradient) -> Gradient:
    """A convolution of the gradient, spread by the strides, whose own strides are the input's dilation."""
    a, (x, w) = step.attributes, step.inputs
    shape, window = tape.shape(x), tape.shape(w)[:-2]
    value, kernel = tape.short(g.value, w)
    sizes = tape.shape(value)[1:-1]
    padding, strides, crop = [], [], []
    for axis, k in enumerate(window):
        n, spread, dilation = shape[1 + axis], a["input_dilation"][axis], a["dilation"][axis]
        reach = (k - 1) * dilation
        length = (sizes[axis] - 1) * a["strides"][axis] + 1
        low = reach - a["padding"][axis][0]
        high = (n - 1) * spread + 1 + reach - length - low
        padding.append([max(low, 0), max(high, 0)])
        # What the padding reached into beyond the kernel's own reach is cut off, at the input's own distances.
        strides.append(spread if low >= 0 else 1)
        crop.append(slice(0, n, 1) if low >= 0 else slice(-low, -low + (n - 1) * spread + 1, spread))
    result = tape.step(
        "conv", value, _flipped(tape, kernel, a["groups"]), strides=strides, padding=padding, dilation=a["dilation"],
        input_dilation=a["strides"], groups=a["groups"], twice=True,
    )
    start, stop = [0, *(c.start for c in crop), 0], [shape[0], *(c.stop for c in crop), shape[-1]]
    return part(tape, Gradient(result, g.scale), start, stop, [1, *(c.step for c in crop), 1])


def _flipped(tape: Tape, w: str, groups: int) -> str:
    """The kernel turned round, with inputs and outputs of each group exchanged."""
    *window, channels, filters = tape.shape(w)
    space = len(window)
    if any(n > 1 for n in window):
        w = tape.step(
            "slice", w, start=[*(n - 1 for n in window), 0, 0], stop=[*(-n - 1 for n in window), channels, filters],
            step=[-1] * space + [1, 1],
        )
    w = tape.reshaped(w, (*window, channels, groups, filters // groups))
    w = tape.step("transpose", w, axes=[*range(space), space + 2, space + 1, space])
    return tape.reshaped(w, (*window, filters // groups, groups * channels))


def _by_kernel(tape: Tape, step: Step, g: Gradient) -> Gradient:
    """A convolution over the input with the gradient as kernel: channels are the batch, the batch is the channels."""
    a, (x, w) = step.attributes, step.inputs
    value, x = tape.short(g.value, x)
    batch, *space, channels = tape.shape(x)
    *window, inner, filters = tape.shape(w)
    groups, rank = a["groups"], len(space)
    x = tape.reshaped(x, (batch, *space, groups, inner))
    x = tape.step("transpose", x, axes=[rank + 2, *range(1, rank + 1), rank + 1, 0])
    x = tape.reshaped(x, (inner, *space, groups * batch))
    value = tape.step("transpose", value, axes=[*range(1, rank + 1), 0, rank + 1])
    result = tape.step(
        "conv", x, value, strides=a["dilation"], padding=a["padding"], dilation=a["strides"],
        input_dilation=a["input_dilation"], groups=groups, twice=True,
    )
    # Elements behind the last window that the strides took make further places.
    result = part(tape, Gradient(result, g.scale), [0] * (rank + 2), [inner, *window, filters])
    return tape.through(result, "transpose", axes=[*range(1, rank + 1), 0, rank + 1])


RULES = {"conv": _conv}
