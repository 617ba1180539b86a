"""Operations that are refused, with what to do instead. What is in no table is refused with general advice."""
from keras.src.ops import numpy as knp

ROUNDING = "rounding is a comparison with every integer; round before or after `predict`."

REFUSED: dict[type, str] = {
    knp.Floor: ROUNDING,
    knp.Ceil: ROUNDING,
    knp.Round: ROUNDING,
    knp.Trunc: ROUNDING,
}
