"""Makers of joints that losses share."""
from private_keras.plan.gradients.records import Gradient, Joint
from private_keras.plan.gradients.tape import Tape


def difference(logits: str, predicted: str, target: str, axis: int | None = None) -> Joint:
    """The joint of a loss whose gradient by its logits is `predicted - target`.

    So it is for cross-entropy of softmax (summed over an axis), and elementwise for binary cross-entropy of sigmoid.

    Args:
        logits: the value that the gradient is by; of `predicted`'s shape.
        predicted: softmax or sigmoid of the logits.
        target: what it should be: broadcasts to that shape, and sums to 1 over the axis.
        axis: of the logits, that the loss has not; None where the loss has the logits' shape.

    Cost: local if the loss's own gradient is public (a mean); else one product and its truncation.
    """

    def backward(tape: Tape, g: Gradient) -> list[Gradient]:
        away = tape.minus(predicted, target)
        if axis is not None:
            shape = tape.shape(g.value)
            g = Gradient(tape.reshaped(g.value, (*shape[:axis], 1, *shape[axis:])), g.scale)
        return [tape.multiply(g, away)]

    return Joint((logits,), backward)
