"""What the training examples share: the picture of two runs side by side."""
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402 - the backend is chosen first


def draw(path: Path, title: str, runs: dict[str, dict[str, list[float]]], names: tuple[str, ...]) -> None:
    """Writes a picture.

    Args:
        path: of the PNG.
        title: above it.
        runs: Keras' `History.history` by what the run is called.
        names: which curves, one panel each.
    """
    figure, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 3.4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for (run, history), style in zip(runs.items(), ("o-", "x--", "s:"), strict=False):
            axis.plot(range(1, len(history[name]) + 1), history[name], style, label=run)
        axis.set_title(name)
        axis.set_xlabel("epoch")
        axis.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
