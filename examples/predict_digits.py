"""Predict on encrypted handwritten digits with a pre-trained Keras model, on three servers of this machine.

    python examples/predict_digits.py [folder for the model and the picture, "out" by default]

Trains an ordinary Keras CNN on scikit-learn's digits, saves it as `digits.h5`, loads that file with private_keras,
predicts the whole test set on secret shares and compares with Keras. Writes `digits.png`: a digit, what each server saw
of it, and the opened prediction.
"""
import secrets
import sys
import time
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import private_keras as pk
from private_keras.ring import default_kernel, fixedpoint
from private_keras.server.material import SEED_BYTES, Receiver, split

BATCH = 90
EPOCHS = 15


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images (rows, 8, 8, 1) from 0 to 1 and labels: train images, test images, train labels, test labels."""
    data = load_digits()
    images = (data.images / 16).astype("float32")[..., None]
    return train_test_split(images, data.target, test_size=0.2, random_state=1, stratify=data.target)


def train(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """What the model's owner did some day, without a thought of private_keras: a Keras model in a file."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 1)),
        layers.Conv2D(16, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, batch_size=32, epochs=EPOCHS, verbose=0)
    model.save(path)


def seen_by_servers(image: np.ndarray) -> list[np.ndarray]:
    """What each server holds of an image that is shared: words mod 2^64, in the image's shape.

    Servers 0 and 1 hold the image plus both masks, and one mask each; server 2 holds both masks. Here are the masked
    image, the mask of server 1, and the sum of masks. Masks are drawn anew whenever something is shared: these are made
    in the same way as those of the prediction, not the very same.
    """
    elements = fixedpoint.encode(image, fixedpoint.DEFAULT_FRACTION)
    kernel = default_kernel()
    seeds = (secrets.token_bytes(SEED_BYTES), secrets.token_bytes(SEED_BYTES))
    held = []
    for party, (seed, words) in enumerate(split(elements, kernel, seeds)):
        receiver = Receiver(party, elements.size, "digit")
        receiver.feed(seed + words.tobytes())
        held.append(receiver.finish(kernel))
    return [words.reshape(image.shape) for words in (held[0].words, held[1].mask, held[2].mask)]


def draw(path: Path, image: np.ndarray, label: int, prediction: np.ndarray) -> None:
    """A digit, what each of the three servers saw of it, and the opened prediction."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 5, figsize=(14, 3), width_ratios=(1, 1, 1, 1, 1.5), layout="constrained")
    axes[0].imshow(image[..., 0], cmap="gray_r")
    axes[0].set_title(f"the client's digit: {label}")
    titles = ("server 0: the digit, masked", "server 1: its mask", "server 2: the masks")
    for axis, words, title in zip(axes[1:4], seen_by_servers(image), titles, strict=True):
        # Of 64 bits the eight that make up the gray of a pixel from 0 to 1.
        gray = (words[..., 0] >> np.uint64(fixedpoint.DEFAULT_FRACTION - 8)).astype(np.uint8)
        axis.imshow(gray, cmap="gray_r", vmin=0, vmax=255)
        axis.set_title(title)
    for axis in axes[:4]:
        axis.set_axis_off()
    colors = ["tab:orange" if i == prediction.argmax() else "tab:blue" for i in range(10)]
    axes[4].bar(range(10), prediction, color=colors)
    axes[4].set_xticks(range(10))
    axes[4].set_title("opened to the client: the prediction")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train_images, images, train_labels, labels = digits()
    path = folder / "digits.h5"
    print("Training an ordinary Keras model ...")
    train(path, train_images, train_labels)

    expected = keras.models.load_model(path, compile=False).predict(images, verbose=0)

    cluster = pk.connect()  # three server processes on this machine
    model = pk.models.load_model(path)
    print(model.check(images[:8]))
    print(f"Predicting {len(images)} encrypted digits on three servers ...")
    model.predict(images[:BATCH], verbose=0)  # shares the weights and makes the plan ready
    before = cluster.stats.total
    start = time.perf_counter()
    predicted = model.predict(images, batch_size=BATCH)
    seconds = time.perf_counter() - start

    exact, found = expected.argmax(axis=1), predicted.argmax(axis=1)
    print(f"accuracy in the clear     {np.mean(exact == labels):.4f}")
    print(f"accuracy encrypted        {np.mean(found == labels):.4f}")
    print(f"predictions that agree    {np.sum(exact == found)} of {len(labels)}")
    print(f"largest difference        {np.abs(predicted - expected).max():.2g}")
    print(f"seconds per image         {seconds / len(labels):.5f}")
    after = cluster.stats.total
    print(f"rounds per batch of {BATCH}    {(after.rounds - before.rounds) // (after.runs - before.runs)}")
    for party, (sent, earlier) in enumerate(zip(after.sent, before.sent, strict=True)):
        print(f"bytes sent by server {party}    {sent - earlier:,}")
    draw(folder / "digits.png", images[0], int(labels[0]), predicted[0])
    print(f"picture                   {folder / 'digits.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
