"""`subiso.integrations.joblib`: joblib's batches in isolates."""

import threading
import warnings

import pytest

joblib = pytest.importorskip("joblib")
numpy = pytest.importorskip("numpy")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

from subiso import Isolate, ReceivePort, SendError  # noqa: E402
from subiso.integrations.joblib import IsolateBackend  # noqa: E402

LONG = 60  # seconds: the bound of a wait that should be over at once


def where(number=0):
    return Isolate.current().name, number


def fail_at_seven(number):
    if number == 7:
        raise ValueError("seven")
    return number


def spin(port):
    port.send("here")
    while True:
        pass


def nested(most):
    return Parallel(n_jobs=2)(delayed(abs)(-number) for number in range(most))


def test_a_list():
    """Results come in order, from as many isolates as there are jobs."""
    results = Parallel(n_jobs=2, backend="subiso")(delayed(where)(number) for number in range(50))
    assert [number for _, number in results] == list(range(50))
    assert {name for name, _ in results} <= {"joblib-1", "joblib-2"}
    assert Parallel(n_jobs=1, backend="subiso")([delayed(where)()]) == [("main", 0)]


@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_generators(return_as):
    """Results can be taken as they come; the generator may be dropped."""
    results = Parallel(n_jobs=2, backend="subiso", return_as=return_as)(delayed(abs)(-one) for one in range(30))
    assert sorted(results) == list(range(30))
    results = Parallel(n_jobs=2, backend="subiso", return_as=return_as)(delayed(abs)(-one) for one in range(300))
    next(results)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib tells how much was done in vain
        del results


def test_errors():
    """A task's error comes back as itself; a block of calls goes on after it."""
    with pytest.raises(ValueError, match="seven"):
        Parallel(n_jobs=2, backend="subiso")(delayed(fail_at_seven)(number) for number in range(50))
    with Parallel(n_jobs=2, backend="subiso", batch_size=3) as parallel:
        with pytest.raises(ValueError, match="seven"):
            parallel(delayed(fail_at_seven)(number) for number in range(50))
        assert parallel(delayed(abs)(-number) for number in range(5)) == list(range(5))


def test_what_cannot_be_sent():
    """An argument that cannot be sent is an error wherever in the work it is, and hangs nothing."""
    for place in (0, 40):
        with pytest.raises(SendError, match="lock objects cannot be sent"):
            Parallel(n_jobs=2, backend="subiso", pre_dispatch=4, batch_size=1)(
                delayed(id)(threading.Lock() if number == place else number) for number in range(50)
            )


def test_timeouts():
    """A call that takes too long is stopped, though its tasks never end."""
    with ReceivePort() as port, pytest.raises(joblib.parallel.TimeoutError):
        Parallel(n_jobs=2, backend="subiso", timeout=0.5)(delayed(spin)(port.send_port) for _ in range(4))


def test_nested_calls():
    """Parallelism inside a task is sequential."""
    results = Parallel(n_jobs=2, backend="subiso")(delayed(nested)(most) for most in range(4))
    assert results == [list(range(most)) for most in range(4)]


def test_arrays():
    """Arrays go there and back."""
    arrays = [numpy.arange(100_000)[::-1] + number for number in range(4)]
    results = Parallel(n_jobs=2, backend="subiso")(delayed(numpy.sort)(array) for array in arrays)
    for array, result in zip(arrays, results, strict=True):
        numpy.testing.assert_array_equal(numpy.sort(array), result)


def test_a_block():
    """The calls of a `parallel_config` block share their isolates, which end with it."""
    with parallel_config("subiso", n_jobs=2):
        names = set()
        for _ in range(3):
            names |= {name for name, _ in Parallel()(delayed(where)(number) for number in range(20))}
        assert names <= {"joblib-1", "joblib-2"}
        assert len(Parallel(n_jobs=3)(delayed(where)(number) for number in range(20))) == 20
        assert Parallel(require="sharedmem")([delayed(where)()]) == [("main", 0)]


def test_options():
    """Options are checked; policies for compiled packages are passed on."""
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0, backend="subiso")([])
    with pytest.raises(TypeError, match="no option 'colour'"):
        parallel_config("subiso", colour="red")
    with pytest.raises(ImportError), parallel_config("subiso", n_jobs=2, extensions="off"):
        Parallel()(delayed(numpy.sort)([2, 1]) for _ in range(2))
    backend = IsolateBackend()
    assert backend.effective_n_jobs(-1) >= 1
    assert backend.effective_n_jobs(None) == 1
    assert backend.effective_n_jobs(-10_000) == 1


def test_scikit_learn():
    """scikit-learn computes in isolates what it computes without them."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_score

    table, labels = make_classification(200, random_state=0)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    forest = RandomForestClassifier(8, random_state=0)
    scores = cross_val_score(LogisticRegression(), table, labels, cv=4)
    found = search.fit(table, labels).cv_results_["mean_test_score"]
    chances = forest.fit(table, labels).predict_proba(table)
    with parallel_config("subiso", n_jobs=2):
        numpy.testing.assert_array_equal(cross_val_score(LogisticRegression(), table, labels, cv=4), scores)
        numpy.testing.assert_array_equal(search.fit(table, labels).cv_results_["mean_test_score"], found)
        numpy.testing.assert_array_equal(forest.fit(table, labels).predict_proba(table), chances)
