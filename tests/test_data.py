"""Data at their owner: every form is read as the same numbers, in blocks, and what is wrong is named."""

import sys

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from private_keras.data import read, tables
from private_keras.data import reading as readings
from private_keras.errors import FileError, InputError, PrivateKerasError

SECRET = "54.321"


@pytest.fixture
def csv(tmp_path):
    def write(text, name="people.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


PEOPLE = "age,sex,income\n34,f,1.5\n20,m,-2\n71,f,0.25\n"
NUMBERS = np.array([[34, 0, 1.5], [20, 1, -2], [71, 0, 0.25]])


def test_a_csv_file(csv):
    data = read(csv(PEOPLE), categories=["sex"], ranges={"age": (0, 120)})
    assert data.shape == (3, 3) and data.dtype == np.float64 and data.small and data.columns == ("age", "sex", "income")
    assert data.categories == {"sex": ("f", "m")} and "sex" in data.about() and '"f"' not in data.about()
    np.testing.assert_array_equal(data.array(), NUMBERS)
    np.testing.assert_array_equal(data.array(), NUMBERS, "again")


def test_columns_in_the_order_they_are_asked_for(csv):
    path = csv(PEOPLE)
    np.testing.assert_array_equal(read(path, columns=["income", "age"]).array(), NUMBERS[:, [2, 0]])
    vector = read(path, columns="age")
    assert vector.shape == (3,) and vector.dtype == np.int64
    np.testing.assert_array_equal(read(path, columns=["age"]).array(), NUMBERS[:, :1])
    assert read(path, columns=["age"], dtype="float").dtype == np.float64


def test_declared_categories_keep_their_codes(csv):
    path = csv(PEOPLE)
    np.testing.assert_array_equal(read(path, columns="sex", categories={"sex": ["m", "f", "x"]}).array(), [1, 0, 1])
    with pytest.raises(InputError, match="column 'sex', row 2: expected one of the 1 categories"):
        read(path, columns="sex", categories={"sex": ["f"]})


def test_missing_values_are_filled_where_it_is_said(csv):
    path = csv("a,b\n1,2\nNA,3\n,4\n")
    np.testing.assert_array_equal(read(path, fill={"a": 7}).array(), [[1, 2], [7, 3], [7, 4]])
    np.testing.assert_array_equal(read(path, fill={"a": 0.5}).array(), [[1, 2], [0.5, 3], [0.5, 4]])
    with pytest.raises(InputError, match=r"column 'a', row 2: expected a value. Received: none, and in 1 more"):
        read(path)


@pytest.mark.parametrize("text, options, expected", [
    (f"a\n1\n{SECRET}x\n", {}, "column 'a', row 2: expected a number. Received: text.*categories="),
    (f"a\n1\n{SECRET}\n", {"dtype": "int"}, "row 2: expected a whole number.*dtype='float'"),
    (f"a\n1\n{SECRET}\n", {"ranges": {"a": (0, 3)}}, "row 2: expected a number from 0 to 3. Received: one outside"),
    ("a\n1\ninf\n", {}, "row 2: expected a finite number"),
    ("a\n1\n5_4\n", {}, "row 2: expected a number. Received: text"),
    ("a\n1.5\n1048576\n", {}, r"row 2: expected a number below 2\^20"),
    ("a\n1\n1073741824\n", {}, r"row 2: expected a number below 2\^30"),
    ("a,b\n1048576,0.5\n", {}, r"column 'a': expected numbers below 2\^20.*beside"),
    ("a\n5432154321543215432154321\n", {}, r"row 1: expected a number below"),
    ("a\n", {}, "at least one row"),
    ("a\n1\n", {"columns": ["b"]}, "expected columns among"),
    ("a\n1\n", {"columns": ["a", "a"]}, "each once"),
    ("a\n1\n", {"columns": []}, "each once"),
    ("a\n1\n", {"ranges": {"b": (0, 1)}}, "ranges: expected columns among"),
    ("a\n1\n", {"ranges": {"a": (2, 1)}}, "least, largest"),
    ("a\n1\n", {"ranges": (0, 1)}, "dict by column"),
    ("a\n1\n", {"fill": {"z": 0}}, "fill: expected columns"),
    ("a\nx\n", {"categories": {"a": "xyz"}}, "list of different names"),
    ("a\nx\n", {"categories": {"a": ["x", "x"]}}, "list of different names"),
    ("a\n1\n", {"dtype": "double"}, "dtype"),
    ("a\n1\n", {"delimiter": "ab"}, "one character"),
])  # fmt: skip
def test_what_is_wrong_with_a_table(csv, text, options, expected):
    with pytest.raises(InputError, match=expected) as caught:
        read(csv(text), **options)
    assert "54" not in str(caught.value).replace(str(csv(text)), "")


@pytest.mark.parametrize("text, expected", [
    ("", "names the columns"), ("a,,b\n1,2,3\n", "empty names"), ("a,a\n1,2\n", "the same twice"),
    (f"a,b\n1,2\n3\n{SECRET},1\n", "row 2: expected 2 cells. Received: 1"), (f'a\n"{SECRET}\n', "row 1.*quote"),
    ('a\n"1"2\n', "row 1.*quote"), ("a\n" + "1" * 200_000 + "\n", "row 1"),
])  # fmt: skip
def test_what_is_wrong_with_a_csv_file(csv, text, expected):
    with pytest.raises(FileError, match=expected) as caught:
        read(csv(text))
    assert "54" not in str(caught.value).replace(str(csv(text)), "")


def test_other_files(csv, tmp_path):
    with pytest.raises(FileError, match="UTF-8"):
        read(csv("a\né\n", encoding="latin-1"))
    for name, expected in (("x.xlsx", "npy, .csv or .parquet"), ("x", "no ending")):
        with pytest.raises(InputError, match=expected):
            read(csv("a\n1\n", name))
    for name in ("none.csv", "none.npy"):
        with pytest.raises(FileError, match="cannot read"):
            read(tmp_path / name)
    for content in (b"", b"not an array", b"\x93NUMPY\x01\x00"):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(FileError, match="numpy.save"):
            read(tmp_path / "x.npy")
    np.save(tmp_path / "objects.npy", np.array([{}, []], object), allow_pickle=True)
    with pytest.raises(FileError):
        read(tmp_path / "objects.npy")


def test_tabs_semicolons_bom_and_blank_lines(csv):
    np.testing.assert_array_equal(read(csv("\ufeffa\tb\n1\t2\n\n3\t4\n", "x.tsv")).array(), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(read(csv("a;b\r\n1;2\r\n"), delimiter=";").array(), [[1, 2]])
    np.testing.assert_array_equal(read(csv('"a, b"\n"1"\ntrue\nFalse\n')).array(), [[1], [1], [0]])


@given(st.lists(st.tuples(st.integers(-(2**19), 2**19), st.floats(-1000, 1000, width=32)), min_size=1, max_size=40),
       st.integers(1, 7))  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_blocks_of_any_size_give_the_same(rows, size):
    whole, real = zip(*rows, strict=True)
    before = tables.ROWS, readings.ELEMENTS
    try:
        tables.ROWS, readings.ELEMENTS = size, size
        found = read({"a": list(whole), "b": np.array(real)})
        np.testing.assert_array_equal(found.array(), np.stack([whole, real], axis=1).astype(np.float64))
        assert len(list(found.blocks())) == -(-len(rows) // size)
        array = np.array(rows)
        np.testing.assert_array_equal(read(array).array(), array)
    finally:
        tables.ROWS, readings.ELEMENTS = before


# --- arrays -----------------------------------------------------------------------------------------------------------
def test_a_file_of_numpy_stays_on_disk(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    np.save(tmp_path / "x.npy", array)
    data = read(tmp_path / "x.npy", ranges=(0, 23))
    assert data.shape == (4, 3, 2) and data.dtype == np.float32 and data.real
    (block,) = data.blocks()
    assert isinstance(block.base, np.memmap) or isinstance(block, np.memmap)
    np.testing.assert_array_equal(data.array(), array)
    assert read(tmp_path / "x.npy", dtype="int").dtype == np.int64


@pytest.mark.parametrize("array, options, expected", [
    (np.array([[1.0, 2.0], [3.0, np.nan]]), {}, "row 2: expected finite numbers"),
    (np.array([1, 54]), {"ranges": (0, 10)}, "row 2: expected numbers from 0 to 10"),
    (np.array([1.0, 54.5]), {"dtype": "int"}, "row 2: expected whole numbers"),
    (np.array([1, 2**30]), {}, r"row 2: expected integers below 2\^30"),
    (np.array([1, 2**20]), {"dtype": "float"}, r"row 2: expected real numbers below 2\^20"),
    (np.array(["54"]), {}, "Encode text"), (np.zeros((0, 3)), {}, "at least one"), (np.zeros((3, 0)), {}, "at least"),
    (np.zeros(3), {"columns": ["a"]}, "columns goes with tables"), (np.zeros(3), {"dtype": "x"}, "dtype"),
    (np.zeros(3), {"ranges": 3}, "least, largest"), (object(), {}, "numbers"),
    (np.ma.masked_array([1.0, 2.0], [False, True]), {}, "masked"),
])  # fmt: skip
def test_what_is_wrong_with_an_array(array, options, expected):
    with pytest.raises(InputError, match=expected) as caught:
        read(array, **options)
    assert "54" not in str(caught.value)


# --- streams and frames -----------------------------------------------------------------------------------------------
def test_datasets():
    import tensorflow as tf

    x = np.arange(30, dtype=np.float32).reshape(10, 3)
    data = read(tf.data.Dataset.from_tensor_slices(x).batch(4))
    assert data.shape == (10, 3) and data.dtype == np.float32
    np.testing.assert_array_equal(data.array(), x)
    table = tf.data.Dataset.from_tensor_slices({"age": [30, 40, 50], "sex": ["f", "m", "f"]}).batch(2)
    np.testing.assert_array_equal(
        read(table, columns=["sex", "age"], categories=["sex"]).array(), [[0, 30], [1, 40], [0, 50]]
    )
    pairs = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(4)
    with pytest.raises(InputError, match=r"dataset.map\(lambda x, y: x\)"):
        read(pairs)
    np.testing.assert_array_equal(read(pairs.map(lambda a, b: b)).array(), x[:, 0])
    rows = iter([5, 7])
    changing = tf.data.Dataset.from_generator(
        lambda: (float(i) for i in range(next(rows))), output_signature=tf.TensorSpec(())
    ).batch(4)
    data = read(changing)
    assert data.shape == (5,) and len(data.array()) == 7, "whoever shares it compares with the shape"


def test_frames():
    frame = pandas.DataFrame({
        "age": [34, 20, 71], "sex": pandas.Categorical(["f", "m", "f"]), "income": [1.5, None, 0.25],
        "member": [True, False, True], "visits": pandas.array([1, None, 3], dtype="Int64"),
    })  # fmt: skip
    data = read(frame, categories=["sex"], fill={"income": -2.0, "visits": 0})
    np.testing.assert_array_equal(data.array()[:, :3], NUMBERS)
    np.testing.assert_array_equal(data.array()[:, 3:], [[1, 1], [0, 0], [1, 3]])
    np.testing.assert_array_equal(read(frame["age"]).array()[:, 0], [34, 20, 71])
    with pytest.raises(InputError, match="column 'income', row 2: expected a value"):
        read(frame, columns=["income"])


def test_parquet(tmp_path):
    table = pyarrow.table({"age": [34, 20, 71], "sex": ["f", "m", "f"], "income": [1.5, None, 0.25]})
    parquet.write_table(table, tmp_path / "people.parquet")
    data = read(tmp_path / "people.parquet", categories=["sex"], fill={"income": -2.0})
    np.testing.assert_array_equal(data.array(), NUMBERS)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(FileError, match="Parquet"):
        read(tmp_path / "bad.parquet")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        read(tmp_path / "people.parquet")


def test_progress_and_texts(csv):
    told = []
    data = read({"a": list(range(40_000))}, progress=told.append)
    assert told[-1] == 40_000 and len(told) > 1
    assert SECRET not in repr(data) + repr(read(csv(f"a\n{SECRET}\n")))
    with pytest.raises(PrivateKerasError, match="equal length"):
        read({"a": [1], "b": [1, 2]})
    with pytest.raises(InputError, match="at most 1000 categories"):
        read({"id": [f"n{i}" for i in range(1100)]}, categories=["id"])


LARGE = {
    "no value, as unsigned": (np.array([1, 2**64 - 1], np.uint64), {}),
    "the least integer": (np.array([1, -(2**63)]), {}),
    "the least integer, as text": (["1", "-9223372036854775808"], {}),
    "no integer at all": (np.array([1, 1e300]), {"dtype": "int"}),
    "hundreds of digits": (["1", "9" * 400], {}),
}


@pytest.mark.parametrize("name", LARGE)
def test_numbers_that_no_integer_holds_are_no_other_numbers(name):
    values, options = LARGE[name]
    with pytest.raises(InputError, match="row 2: expected a (number below 2\\^[23]0|finite number)") as caught:
        read({"a": values}, **options)
    assert "9223" not in str(caught.value) and "999" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"fill": {"a": "x"}}, {"fill": {"a": float("nan")}}, {"fill": {"sex": 1}}, {"ranges": {"sex": (0, 1)}}]
)
def test_what_is_declared_of_a_column_and_has_no_effect_is_refused(options):
    with pytest.raises(InputError, match="expected a (finite number|column of numbers)"):
        read({"a": ["1", ""], "sex": ["f", "m"]}, categories={"sex": None}, **{"fill": {"a": 0}, **options})
