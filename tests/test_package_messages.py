"""Objects of well-known packages as messages: what arrives is equal, of the same type, and as writable as it was.

One isolate sends everything back. Packages that are not installed are skipped.
"""

import datetime
import decimal
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from subiso import Isolate, ReceivePort, SendPort
from subiso._kernel.copies import place
from subiso.messages import encode

np = pytest.importorskip("numpy")
PATIENCE = 60  # seconds; an upper bound
LARGE = 1 << 20  # bytes


def send_back(hello: SendPort, answers: SendPort) -> None:
    """Be the isolate: send every message back, and the name of the type that it had here."""
    with ReceivePort() as messages:
        hello.send(messages.send_port)
        for message in messages:
            answers.send((type(message).__qualname__, message))


@pytest.fixture(scope="module")
def exchange() -> Iterator[Callable[[Any], Any]]:
    """Give a function that sends a message to an isolate and returns what comes back."""
    with ReceivePort() as hello, ReceivePort(end_with_senders=False) as answers:
        with Isolate.spawn(send_back, hello.send_port, answers.send_port):
            port = hello.receive(PATIENCE)

            def exchange(message: Any) -> Any:
                port.send(message)
                name, back = answers.receive(PATIENCE)
                assert name == type(message).__qualname__
                assert type(back) is type(message)
                return back

            yield exchange


# -- numpy -------------------------------------------------------------------------------------------------------------

DTYPES = [*"?bBhHiIlLqQefdgFDG", "S5", "U3", "V4", "M8[ns]", "m8[D]", ">i4", "<f8", "=c16"]
STRUCTURED = np.dtype([("a", "i4"), ("b", "f8", (2, 3)), ("c", "S4"), ("d", [("x", ">u2"), ("y", "?")])], align=True)


def same(one: Any, other: Any) -> None:
    """Check that two arrays are the same in everything that can be seen."""
    assert (one.dtype, one.shape, one.flags.writeable) == (other.dtype, other.shape, other.flags.writeable)
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (2, 0, 3), (3, 4, 5)], ids=str)
def test_arrays_of_every_dtype(exchange: Callable[[Any], Any], dtype: str, shape: tuple[int, ...]) -> None:
    """Arrays of every kind, with none to three dimensions and zero size, arrive as they were."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    array = np.zeros(shape, dtype) if dtype.startswith("V") else numbers.astype(dtype)
    same(exchange(array), array)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda array: np.asfortranarray(array), id="Fortran order"),
        pytest.param(lambda array: array[::2, ::-1], id="with strides"),
        pytest.param(lambda array: array.T, id="transposed"),
        pytest.param(lambda array: np.broadcast_to(array[0], (3, 4)), id="broadcast"),
    ],
)
def test_arrays_in_any_order(exchange: Callable[[Any], Any], make: Callable[[Any], Any]) -> None:
    """Whatever the order in memory, the elements arrive in their places."""
    array = make(np.arange(24.0).reshape(6, 4))
    back = exchange(array)
    assert back.shape == array.shape
    assert (back == array).all()


def test_structured_arrays(exchange: Callable[[Any], Any]) -> None:
    """Nested and aligned structures keep their layout; a record array stays one."""
    array = np.zeros(5, STRUCTURED)
    array["a"], array["c"], array["d"]["x"] = range(5), b"text", 7
    same(exchange(array), array)
    same(exchange(array.view(np.recarray)), array.view(np.recarray))


def test_arrays_of_objects(exchange: Callable[[Any], Any]) -> None:
    """Arrays of objects are pickled."""
    array = np.array([1, "two", None, [3.0], {"four": 4}], object)
    back = exchange(array)
    assert back.dtype == object
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    "value",
    [np.float32(1.5), np.int8(-3), np.datetime64("2024-05-06"), np.dtype("i4,f8"), np.str_("x"), np.bool_(True)],
)
def test_scalars_and_dtypes(exchange: Callable[[Any], Any], value: Any) -> None:
    """Scalars and dtypes keep their types."""
    assert exchange(value) == value


def test_masked_arrays_matrices_and_generators(exchange: Callable[[Any], Any]) -> None:
    """Masked arrays keep their masks, and a random generator goes on where it was."""
    masked = np.ma.masked_greater(np.arange(6), 3)
    back = exchange(masked)
    assert (back.mask == masked.mask).all()
    assert back.sum() == masked.sum()
    generator = np.random.default_rng(3)
    assert exchange(generator).random() == generator.random()


def test_large_arrays_travel_beside_the_pickle() -> None:
    """The bytes of a large array are not copied into the pickle."""
    _, body, buffers, _ = encode(np.zeros(LARGE, "u1"))
    assert len(body) < 1000
    assert [buffer.nbytes for buffer in buffers] == [LARGE]


def test_what_arrives_can_be_written_to(exchange: Callable[[Any], Any]) -> None:
    """A large array that arrives is the receiver's own."""
    array = np.zeros(LARGE, "u1")
    back = exchange(array)
    back[0] = 1
    assert (array[0], exchange(array)[0]) == (0, 0)


# -- others ------------------------------------------------------------------------------------------------------------


def test_pandas(exchange: Callable[[Any], Any]) -> None:
    """Frames, series and indexes arrive with their columns' types; a large frame's columns travel beside the pickle."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "i": np.arange(5),
            "f": np.linspace(0, 1, 5),
            "s": ["a", None, "c", "d", "e"],
            "c": pd.Categorical(["x", "y", "x", "y", "x"]),
            "t": pd.date_range("2024-01-01", periods=5, tz="Europe/Berlin"),
            "n": pd.array([1, None, 3, 4, 5], dtype="Int64"),
        },
        index=pd.MultiIndex.from_product([["k"], range(5)], names=["a", "b"]),
    )
    pd.testing.assert_frame_equal(exchange(frame), frame)
    pd.testing.assert_series_equal(exchange(frame["t"]), frame["t"])
    pd.testing.assert_index_equal(exchange(frame.index), frame.index)
    _, body, buffers, _ = encode(pd.DataFrame({"x": np.zeros(LARGE)}))
    assert len(body) < 10_000
    assert sum(buffer.nbytes for buffer in buffers) >= 8 * LARGE


def test_arrow(exchange: Callable[[Any], Any]) -> None:
    """Tables, arrays, schemas and scalars arrive equal; large ones travel beside the pickle."""
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": [1, None, 3], "b": ["x", "y", None], "c": [[1], [], None], "d": [{"e": 1}, None, {"e": 2}]})
    for value in (table, table["b"], table.schema, table["a"][0], table.to_batches()[0], table.slice(1, 1)):
        assert exchange(value).equals(value)
    _, body, buffers, _ = encode(pa.table({"x": np.zeros(LARGE)}))
    assert len(body) < 10_000
    assert sum(buffer.nbytes for buffer in buffers) >= 8 * LARGE


def test_pydantic(exchange: Callable[[Any], Any]) -> None:
    """Models of a module arrive as instances of the same class, nested ones and their private parts included."""
    pydantic = pytest.importorskip("pydantic")
    from pydantic_models import Order  # made importable beside this file

    order = Order(
        number=uuid.UUID(int=7),
        lines=[{"name": "x", "price": decimal.Decimal("1.10")}],
        when=datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
        note={"a": [1, 2]},
    )
    order._seen = 3
    back = exchange(order)
    assert back == order
    assert back._seen == 3
    assert back.model_fields_set == order.model_fields_set
    with pytest.raises(pydantic.ValidationError):
        back.lines = "none"


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I", "F", "LAB"])
def test_pillow(exchange: Callable[[Any], Any], mode: str) -> None:
    """Images arrive with their mode, size, palette and pixels."""
    images = pytest.importorskip("PIL.Image")
    image = images.linear_gradient("L").resize((40, 30)).convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        image = images.merge("LAB", image.split())
    back = exchange(image)
    assert (back.mode, back.size, back.getpalette()) == (image.mode, image.size, image.getpalette())
    assert back.tobytes() == image.tobytes()


def test_the_place_of_copies_is_left_empty() -> None:
    """Nothing of all this is left where the copies of compiled modules were made."""
    import os

    own = f"{place()}/subiso-{os.geteuid()}/{os.getpid()}-"
    parent = os.path.dirname(own)
    assert not os.path.isdir(parent) or not any(name.startswith(f"{os.getpid()}-") for name in os.listdir(parent))
