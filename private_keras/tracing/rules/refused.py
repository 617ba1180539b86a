"""Operations and layers that are refused, with what to do instead; all others without a rule get general advice."""

from keras import layers
from keras.src.ops import core, linalg, math, nn
from keras.src.ops import image as kimage
from keras.src.ops import numpy as knp

GENERAL = (
    "no rule lowers it. Replace it by operations listed in docs/coverage.md, or compute it before or after `predict`."
)
ROUNDING = "rounding compares with every integer; round before or after `predict`."
SORTING = "sorting needs a comparison of all pairs; use max, argmax or where, or sort after `predict`."
ANGLES = "its argument would have to be reduced by its period; compute it before `predict`, or as a table with take."
BITS = "bits of a secret are not available; use logical operations on truth values, or split integers before `predict`."
LOOPS = "the number of steps or the branch may depend on secrets; unroll the loop in Python, or choose with where."
SHAPES = "the result's shape depends on secrets; use where and sums over a mask."
COMPLEX = "complex numbers and spectra are not available; compute them before `predict`."
DECOMPOSITION = "decompositions and inverses of secret matrices are not available; compute them before `predict`."
CTC = "it sums over all alignments of two sequences; align the labels first, and train with a cross-entropy."
TEXT = "it works on text or arbitrary keys; apply it to the data before `predict`."
RANDOM = "it is random in prediction too; apply it to the data before `predict`."

REFUSED: dict[type, str] = {
    **dict.fromkeys((knp.Floor, knp.Round, knp.Trunc, knp.FloorDivide, knp.Mod, knp.Fmod), ROUNDING),
    **dict.fromkeys(
        (
            knp.Sort,
            knp.Argsort,
            knp.Argpartition,
            knp.Median,
            knp.Quantile,
            knp.Percentile,
            knp.Nanmedian,
            knp.Nanquantile,
            knp.Nanpercentile,
        ),
        SORTING,
    ),
    **dict.fromkeys(
        (
            knp.Sin,
            knp.Cos,
            knp.Tan,
            knp.Sinc,
            knp.Arcsin,
            knp.Arccos,
            knp.Arctan,
            knp.Arctan2,
            knp.Sinh,
            knp.Cosh,
            knp.Arcsinh,
            knp.Arccosh,
            knp.Arctanh,
        ),
        ANGLES,
    ),
    **dict.fromkeys(
        (
            knp.BitwiseAnd,
            knp.BitwiseOr,
            knp.BitwiseXor,
            knp.BitwiseNot,
            knp.BitwiseInvert,
            knp.BitwiseLeftShift,
            knp.BitwiseRightShift,
            knp.LeftShift,
            knp.RightShift,
        ),
        BITS,
    ),
    **dict.fromkeys(
        (
            core.Cond,
            core.Switch,
            core.WhileLoop,
            core.ForiLoop,
            core.Scan,
            core.AssociativeScan,
            core.Map,
            core.VectorizedMap,
        ),
        LOOPS,
    ),
    **dict.fromkeys((knp.Nonzero, knp.Unique, knp.Bincount, knp.Histogram), SHAPES),
    core.ScatterUpdate: "places must be public; use one_hot and matmul.",
    **dict.fromkeys(
        (math.FFT, math.FFT2, math.IFFT2, math.RFFT, math.IRFFT, math.STFT, math.ISTFT, knp.Angle, knp.Imag, nn.Polar),
        COMPLEX,
    ),
    **dict.fromkeys(
        (
            linalg.Cholesky,
            linalg.CholeskyInverse,
            linalg.Det,
            linalg.Eig,
            linalg.Eigh,
            linalg.Inv,
            linalg.LuFactor,
            linalg.Lstsq,
            linalg.MatrixRank,
            linalg.Pinv,
            linalg.Qr,
            linalg.SVD,
            linalg.Solve,
            linalg.SolveTriangular,
            math.Logdet,
            knp.Slogdet,
        ),
        DECOMPOSITION,
    ),
    **dict.fromkeys((nn.CTCLoss, nn.CTCDecode), CTC),
    nn.Sparsemax: "it sorts; use softmax.",
    math.Erfinv: "it grows without bound; compute it before `predict`.",
    knp.Cumprod: "a product of many factors overflows fixed point; use cumsum of logarithms.",
    kimage.MapCoordinates: "coordinates must be public; use Resizing or a convolution.",
}
LAYERS_REFUSED: dict[type, str] = {
    **dict.fromkeys(
        (layers.TextVectorization, layers.StringLookup, layers.IntegerLookup, layers.Hashing, layers.HashedCrossing),
        TEXT,
    ),
    **dict.fromkeys((layers.STFTSpectrogram, layers.MelSpectrogram), COMPLEX),
    layers.RandomCrop: RANDOM,
    layers.AutoContrast: "it rounds to levels of brightness; apply it to the data before `predict`.",
    layers.ContrastLimitedAdaptiveHistogramEqualization: "it counts levels of brightness; apply it before `predict`.",
    layers.MaxNumBoundingBoxes: "boxes are labels, not inputs; leave it to the training data.",
    layers.Equalization: "it counts levels of brightness; apply it to the data before `predict`.",
    layers.Solarization: "apply it to the data before `predict`.",
    layers.TFSMLayer: "it holds a compiled graph; load the Keras model it was made from.",
    layers.TorchModuleWrapper: "it runs in PyTorch; rebuild it from Keras layers.",
    layers.JaxLayer: "it runs in JAX; rebuild it from Keras layers.",
    layers.FlaxLayer: "it runs in JAX; rebuild it from Keras layers.",
}
