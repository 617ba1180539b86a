"""Speed of the ring kernel on this machine: products, convolutions, the generator, each comparison step.

Usage: python benchmarks/kernel.py [--isa NAME] [--seconds S]
"""
import argparse
import time
from collections.abc import Callable

import numpy as np

from private_keras.ring import tree
from private_keras.ring.kernel import plane_words
from private_keras.ring.native_kernel import NativeKernel
from private_keras.ring.steps import Draw

WIDTH = 62
ELEMENTS = 10**6


def best(call: Callable[[], object], seconds: float) -> float:
    """Shortest of the runs that fit in `seconds`, five at least: other work on the machine only ever adds time."""
    shortest, runs, end = float("inf"), 0, time.perf_counter() + seconds
    while runs < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
        runs += 1
    return shortest


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 1 << 64, shape, dtype=np.uint64)


def products(kernels: list[NativeKernel], rng: np.random.Generator, seconds: float) -> None:
    print("matrix product".ljust(34), *(f"{k._engine.threads} threads".rjust(12) for k in kernels), "GMAC/s")
    shapes = [(1024, 1024, 1024), (128, 784, 128), (1, 784, 128), (128, 128, 10), (4096, 64, 1), (128, 784, 512)]
    for m, k, n in shapes:
        a, b = words(rng, m, k), words(rng, k, n)
        for label, left, right in [("", a, b), (" a^T", np.asfortranarray(a), b), (" b^T", a, np.asfortranarray(b))]:
            rates = [m * k * n / best(lambda x=x, p=left, q=right: x.matmul(p, q), seconds) / 1e9 for x in kernels]
            print(f"  {m}x{k}x{n}{label}".ljust(34), *(f"{rate:12.2f}" for rate in rates))


def convolutions(kernels: list[NativeKernel], rng: np.random.Generator, seconds: float) -> None:
    print("convolution")
    cases = [
        ("16x32x32x64 * 3x3x64x64", (16, 32, 32, 64), (3, 3, 64, 64), 1),
        ("16x28x28x1 * 5x5x1x16", (16, 28, 28, 1), (5, 5, 1, 16), 1),
        ("16x32x32x64 * 1x1x64x64", (16, 32, 32, 64), (1, 1, 64, 64), 1),
        ("16x32x32x64 * 3x3 depthwise", (16, 32, 32, 64), (3, 3, 1, 64), 64),
        ("16x32x32x64 * 3x3, 4 groups", (16, 32, 32, 64), (3, 3, 16, 64), 4),
    ]
    for label, x_shape, w_shape, groups in cases:
        x, w = words(rng, *x_shape), words(rng, *w_shape)
        pad = [((size - 1) // 2, size // 2) for size in w_shape[:2]]
        macs = x.size // x_shape[-1] * w.size
        arguments = (x, w, (1, 1), pad, (1, 1), groups)
        rates = [macs / best(lambda k=k, a=arguments: k.conv(*a), seconds) / 1e9 for k in kernels]
        print(f"  {label}".ljust(34), *(f"{rate:12.2f}" for rate in rates))


def streams(kernel: NativeKernel, rng: np.random.Generator, seconds: float) -> None:
    print("generator, GB/s")
    key = bytes(16)
    for count in (8192, 10**6):
        x = words(rng, count)
        out = np.empty(count, np.uint64)
        for label, call in [
            (f"random, {count} words", lambda n=count: kernel.random(key, 0, n)),
            (f"random into an array, {count}", lambda o=out: kernel._engine.random(key, 0, 0, o)),
            (f"add a draw, {count} words", lambda x=x: kernel.add(x, Draw(key, 0, 0, x.size))),
        ]:
            print(f"  {label}".ljust(34), f"{8 * count / best(call, seconds) / 1e9:12.2f}")


def comparison(kernel: NativeKernel, rng: np.random.Generator, seconds: float) -> None:
    print(f"comparison of {WIDTH} bits, ns per element, n = {ELEMENTS}, and in pieces of 16384")
    for_all, pieces = steps(kernel, rng, ELEMENTS), steps(kernel, rng, 16384)
    for (label, call), (_, piece) in zip(for_all, pieces, strict=True):
        times = best(call, seconds) / ELEMENTS * 1e9, best(piece, seconds) / 16384 * 1e9
        print(f"  {label}".ljust(34), *(f"{t:12.2f}" for t in times))


def steps(kernel: NativeKernel, rng: np.random.Generator, n: int) -> list[tuple[str, Callable[[], object]]]:
    """Every step of a comparison, on random messages of the right size."""
    row, key = plane_words(n), bytes(16)
    x = words(rng, n)
    plane = words(rng, row)
    digits = words(rng, tree.digit_planes(WIDTH) * row)
    masks = [words(rng, tree.opened_planes(WIDTH, level) * row) for level in range(2)]
    products = [words(rng, tree.product_planes(WIDTH, level) * row) for level in range(2)]
    planes = kernel.to_planes(x, WIDTH)
    kept = [words(rng, 4 * row), words(rng, row)]
    return [
        ("to_planes", lambda: kernel.to_planes(x, WIDTH)),
        ("from_planes", lambda: kernel.from_planes(planes, WIDTH, n)),
        ("to_planes, 1 bit", lambda: kernel.to_planes(x, 1, 63)),
        ("digits_deal", lambda: kernel.digits_deal(x, WIDTH, digits)),
        ("digits_compare", lambda: kernel.digits_compare(x, [0], WIDTH, digits, 0, masks[0], top=True)),
        ("tree_deal level 1", lambda: kernel.tree_deal(masks[0], masks[0], WIDTH, n, 0, products[0])),
        ("tree_combine level 1", lambda: kernel.tree_combine(
            masks[0], masks[0], kept[0], products[0], masks[0], WIDTH, n, 0, 0, masks[1])),
        ("tree_deal level 2", lambda: kernel.tree_deal(masks[1], masks[1], WIDTH, n, 1, products[1])),
        ("tree_combine level 2", lambda: kernel.tree_combine(
            masks[1], masks[1], kept[1], products[1], masks[1], WIDTH, n, 1, 0, plane)),
        ("exp2_public", lambda: kernel.exp2_public(x >> np.uint64(41), 18, 0, 0)),
        ("rescale, drawn", lambda: kernel.rescale(x, Draw(key, 0, 0, 2 * n), 1, 18, 0)),
        ("rescale_deal", lambda: kernel.rescale_deal(x, Draw(key, 0, 0, 2 * n), 1, 18)),
        ("gate_rescaled, drawn", lambda: kernel.gate_rescaled(plane, x, Draw(key, 0, 0, 5 * n), 18, 0)),
        ("gate_rescaled_deal", lambda: kernel.gate_rescaled_deal(plane, x, Draw(key, 0, 0, 5 * n), 18)),
        ("add a draw", lambda: kernel.add(x, Draw(key, 0, 0, n))),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isa", default="", help="instruction set; the best one if not given")
    parser.add_argument("--seconds", type=float, default=0.2, help="time per figure")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    kernels = [NativeKernel(threads, arguments.isa) for threads in (1, 2)]
    print(kernels[0])
    products(kernels, rng, arguments.seconds)
    convolutions(kernels, rng, arguments.seconds)
    streams(kernels[0], rng, arguments.seconds)
    comparison(kernels[0], rng, arguments.seconds)


if __name__ == "__main__":
    main()
