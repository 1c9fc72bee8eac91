"""The benchmarks' harness and report: what is computed from figures, not what the figures are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "bench").is_dir():
    pytest.skip("the benchmarks are not beside the tests", allow_module_level=True)
pytest.importorskip("numpy")
sys.path.append(str(ROOT))  # at the end: the package that is tested stays the installed one

from bench import __main__ as command  # noqa: E402
from bench import _advice, _harness, _report, _targets  # noqa: E402
from bench._figures import Results, Spread, human, number, percentiles  # noqa: E402
from bench._harness import Effort, Metric, Question  # noqa: E402
from bench._messages import SMALL  # noqa: E402

HEADER = {
    "python": "3.14.0",
    "compiler": "GCC",
    "system": "Linux",
    "processor": "a processor",
    "cores": 2,
    "memory_gb": 8.0,
    "packages": {"msgspec": "0.20"},
    "commit": "abc",
    "date": "2026-01-01 00:00 UTC",
}


def echo_results(*pairs, quick=False):
    """Return results of the echo, a round for each pair: isolates' p50, and the Pipe's."""
    rounds = [
        {
            "Pipe (spawn)": {SMALL: {"p50": pipe, "p99": pipe * 2}},
            "subiso": {SMALL: {"p50": ours, "p99": ours * 2}},
        }
        for ours, pipe in pairs
    ]
    return Results(rounds=rounds, header=HEADER, quick=quick)


PIPE, OURS = ("Pipe (spawn)", SMALL, "p50"), ("subiso", SMALL, "p50")


def test_percentiles():
    """Single times in seconds give a median and a p99 in microseconds."""
    assert percentiles(number / 1e6 for number in range(1, 102)) == {
        "p50": pytest.approx(51),
        "p99": pytest.approx(100),
    }


def test_percentiles_of_one():
    """One time is both."""
    assert percentiles([0.5]) == {"p50": 5e5, "p99": 5e5}


def test_spread():
    """A spread has the median, the least and the most."""
    assert Spread.of([5, 1, 3]) == (3, 1, 5)


def test_the_ratio_is_taken_within_a_round():
    """A ratio is that of each round, then the median: not the ratio of the medians."""
    results = echo_results((1, 10), (100, 900), (2, 4))
    assert results.ratio(PIPE, OURS) == Spread(9, 2, 10)


def test_a_round_that_lacks_one_has_no_ratio():
    """Only rounds count in which both were measured."""
    results = echo_results((1, 10), (1, 20))
    del results.rounds[0]["subiso"]
    assert results.ratio(PIPE, OURS) == Spread(20, 20, 20)
    del results.rounds[1]["subiso"]
    assert results.ratio(PIPE, OURS) is None


def test_what_was_not_measured():
    """A spread that is not there is None, and a median that is not there an error that names it."""
    results = echo_results((1, 10))
    assert results.spread("nobody", SMALL, "p50") is None
    with pytest.raises(KeyError, match="nobody"):
        results.median("nobody", SMALL, "p50")


def test_isolates_come_first():
    """Opponents keep their order, but isolates are the first; cases keep theirs."""
    results = echo_results((1, 10))
    assert results.opponents() == ["subiso", "Pipe (spawn)"]
    assert results.opponents("another case") == []
    assert results.cases() == [SMALL]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (5.123, "µs", "5.12 µs"),
        (51.23, "µs", "51.2 µs"),
        (999.96, "µs", "1.00 ms"),
        (10_233, "µs", "10.2 ms"),
        (0.1531, "ms", "153 µs"),
        (1500, "ms", "1.50 s"),
        (1_370_000, "per s", "1.37 M/s"),
        (0.0195, "MB", "19.5 kB"),
        (0, "µs", "0 µs"),
        (1.94, "×", "1.94 ×"),
    ],
)
def test_figures_for_people(value, unit, text):
    """A figure is written with few digits, in the unit that suits it."""
    assert human(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (1.5, "1.50"), (12.34, "12.3"), (12_345.6, "12,346")]
)
def test_figures_in_tables(value, text):
    """A figure in a table has three digits that count."""
    assert number(value) == text


# -- measuring ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def question():
    """A question of three opponents, none of whom is ever called."""
    one = Question("none", "None", "", {"p50": Metric("µs")}, rounds=3)
    for name in ("a", "b", "c"):
        one.opponent(name)(lambda effort: {})
    return one


def test_opponents_take_turns(question, monkeypatch):
    """Each round has all of them, and begins with another one."""
    asked = []
    monkeypatch.setattr(
        _harness, "_measure_apart", lambda _, name, effort: asked.append(name) or {"cases": {"x": {"p50": len(asked)}}}
    )
    results = _harness.ask(question, Effort(False), {})
    assert "".join(asked) == "abcbcacab"
    assert [list(one) for one in results.rounds] == [["a", "b", "c"]] * 3
    assert results.values("b", "x", "p50") == [2, 4, 9]


@pytest.mark.skipif(sys.version_info[:2] != (3, 14), reason="that the scripts work is seen once, on one Python")
@pytest.mark.parametrize(
    ("question", "opponent"),
    [(name, opponent) for name in _harness.QUESTIONS for opponent in _harness.load(name).opponents],
)
def test_every_measurement_works(question, opponent):
    """Whoever is measured gives figures, or says that it is not there."""
    outcome = _harness._measure_apart(question, opponent, _harness.Effort(quick=True))
    assert "failed" not in outcome, outcome["failed"]


def test_a_quick_run_has_one_round(question, monkeypatch):
    """Quickly, everybody is measured once, and the results say so."""
    monkeypatch.setattr(_harness, "_measure_apart", lambda *_: {"cases": {}})
    results = _harness.ask(question, Effort(True), {})
    assert (len(results.rounds), results.quick) == (1, True)


def test_who_is_missing_or_fails(question, monkeypatch):
    """Who is missing is asked once; who fails is tried again in the next round; the others are measured."""
    outcomes = {"a": {"missing": "not installed"}, "b": {"failed": "Traceback"}, "c": {"cases": {"x": {"p50": 1}}}}
    asked = []
    monkeypatch.setattr(_harness, "_measure_apart", lambda _, name, effort: asked.append(name) or outcomes[name])
    results = _harness.ask(question, Effort(False), {})
    assert (asked.count("a"), asked.count("b"), asked.count("c")) == (1, 3, 3)
    assert (results.missing, results.failed) == ({"a": "not installed"}, {"b": "Traceback"})
    assert results.values("c", "x", "p50") == [1, 1, 1]


def test_a_fresh_process():
    """An opponent is measured in another process, which gives its figures."""
    outcome = _harness._measure_apart("stream", "thread", Effort(True))
    ((case, figures),) = outcome["cases"].items()
    assert case == _harness.load("stream").panels[0].case
    assert figures["rate"] > 0


def test_what_goes_wrong_in_the_fresh_process():
    """An error there is not one here: it is the outcome, with its traceback."""
    outcome = _harness._measure_apart("stream", "nobody", Effort(True))
    assert "KeyError: 'nobody'" in outcome["failed"]


def test_a_package_that_is_not_there():
    """An opponent whose package is missing says so, and is no failure."""
    with pytest.raises(_harness.Unavailable, match="no_such_package"):
        _harness.need("json", "no_such_package")


def test_timed_is_done_often_enough():
    """A measurement that is out of time at once is still made as often as it must."""
    done = []
    assert len(_harness.timed(lambda: done.append(1), 0, at_least=5)) == 5
    assert len(done) == 6  # one was to warm up


def test_questions_are_kept_one_by_one(tmp_path):
    """New results of one question replace its former ones, and leave the others'."""
    file = tmp_path / "deep" / "3.14.json"
    for name, ours in (("echo", 1), ("pool", 2), ("echo", 3)):
        _harness.save(echo_results((ours, 10)), name, file)
    every = _harness.read(file)
    assert list(every) == ["echo", "pool"]
    assert every["echo"] == echo_results((3, 10))


@pytest.mark.parametrize("name", _harness.QUESTIONS)
def test_a_question_is_whole(name):
    """Each question has a title, a method, somebody to compare with, and panels whose metrics exist."""
    question = _harness.load(name)
    assert question.name == name
    assert question.title
    assert question.method
    assert question.ours in question.opponents or name == "parts"
    assert {panel.metric for panel in question.panels} <= set(question.metrics)
    assert question.panels or question.plot


def test_measuring_imports_no_plots():
    """What is imported where something is measured draws nothing."""
    code = (
        f"import sys; sys.path.append({str(ROOT)!r}); from bench import _harness; "
        "[_harness.load(name) for name in _harness.QUESTIONS]; print('matplotlib' in sys.modules)"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert outcome.stdout == "False\n"


# -- the page ----------------------------------------------------------------------------------------------------------


def target(what="echo of a small typed message, flat out, p50"):
    """Return one of the targets."""
    return next(one for one in _targets.TARGETS if one.what == what)


@pytest.mark.parametrize(("pipe", "met"), [(80, True), (79, False)])
def test_a_target_is_met_by_the_median(pipe, met):
    """A target is met if the median of the rounds' ratios reaches it."""
    found = target().measure({"echo": echo_results((10, 500), (10, pipe), (10, 10))})
    assert found.median == pipe / 10
    assert target().is_met_by(found) is met


def test_a_target_that_is_an_upper_bound():
    """Where less is better, what is above the bound misses it."""
    memory = target("memory of one more isolate with msgspec")
    assert memory.at_most
    assert memory.is_met_by(Spread(0.65, 0.6, 0.9))
    assert not memory.is_met_by(Spread(0.66, 0.5, 0.9))


def test_growth_of_memory():
    """What thousands of runs leave behind is what there is after them, less what there was before."""
    cases = {"after 1,000": {"memory": 50.0}, "after 10,000": {"memory": 50.5}}
    results = Results(rounds=[{"subiso": cases}], header=HEADER)
    assert _targets.grown({"runs": results}).median == 0.5
    assert _targets.grown({"runs": Results(rounds=[{"subiso": {}}])}) is None


@pytest.mark.parametrize("one", _targets.TARGETS, ids=lambda one: one.what)
def test_a_target_without_figures(one):
    """What was not measured is neither met nor missed, and what bounds it can still be told."""
    assert one.measure({}) is None
    assert one.limit({})


def test_where_it_stands():
    """The table has a row for each target and a column for each Python; what was missed has its bounds below it."""
    lines = list(_report.stand({"3.13": {"echo": echo_results((10, 100))}, "3.14": {"echo": echo_results((10, 20))}}))
    assert lines[0] == "| question | against | aimed at | 3.13 | 3.14 |"
    row = next(line for line in lines if line.startswith("| echo of a small"))
    assert row.endswith("| at least 8 × | 10.0 ✓ | 2.00 **✗** |")
    assert sum(line.startswith("| ") for line in lines) == len(_targets.TARGETS) + 2
    (bound,) = [line for line in lines if line.startswith("- ")]
    assert "(missed on 3.14). On 3.14: an echo takes 10.0 µs, and the Pipe 20.0 µs" in bound


def test_rows_of_a_question():
    """A row has the figures with their spread, and how much better isolates are."""
    rows = list(_report.rows(_harness.load("echo"), echo_results((1, 10), (2, 40)), SMALL))
    assert rows == [
        ["subiso", "1.50 (1.00 to 2.00)", "3.00 (2.00 to 4.00)", ""],
        ["Pipe (spawn)", "25.0 (10.0 to 40.0)", "50.0 (20.0 to 80.0)", "15.0 (10.0 to 20.0) ×"],
    ]


def test_better_where_more_is_better():
    """Of rates, the ratio is turned round."""
    rounds = [{"subiso": {SMALL: {"rate": 300.0}}, "mp.Queue (spawn)": {SMALL: {"rate": 100.0}}}]
    rows = list(_report.rows(_harness.load("oneway"), Results(rounds=rounds), SMALL))
    assert rows[1] == ["mp.Queue (spawn)", "100", "3.00 ×"]


def test_advice_has_figures_or_is_left_out():
    """What was not measured gives no sentence; what needs no figure is always there."""
    assert len(list(_advice.sentences({}))) == 1
    results = echo_results((5, 40))
    for name, cases in (
        ("subiso", {SMALL: {"p50": 5.0}, "1 MB of bytes": {"p50": 400.0}}),
        ("thread", {"1 MB of bytes": {"p50": 15.0}}),
    ):
        results.rounds[0][name] = cases
    first = next(iter(_advice.sentences({"echo": results})))
    assert "a small one takes 5.00 µs and 1 MB of bytes 400 µs; a thread hands over whatever it is in 15.0 µs" in first


def test_the_page(tmp_path):
    """A page is written from a small file of results, and has what was measured and nothing else."""
    _harness.save(echo_results((5, 40)), "echo", tmp_path / "3.14.json")
    text = _report.page({"3.14": _harness.read(tmp_path / "3.14.json")})
    assert text.startswith("<!-- Written by")
    assert "![An echo takes 5.0 µs, through a Pipe 40](benchmarks/echo.svg)" in text
    assert "| Pipe (spawn) | 40.0 | 80.0 | 8.00 × |" in text
    assert "a processor" in text
    assert text.count("### ") == 1
    assert "{warning}" not in text


def test_a_quick_page_warns():
    """A page that has figures of a quick run says so."""
    assert "{warning}" in _report.page({"3.14": {"echo": echo_results((5, 40), quick=True)}})


def test_a_page_of_a_busy_machine_warns():
    """A page says if the machine had other things to do."""
    results = echo_results((5, 40))
    results.header = HEADER | {"busy_before": 40.0}
    assert "other things to do" in _report.page({"3.14": {"echo": results}})


def test_no_results(tmp_path):
    """Without results there is no page, and a sentence says what to do."""
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit, match="python -m bench"):
        _report.write(tmp_path, tmp_path)


def test_pictures(tmp_path):
    """The page comes with a picture, which is the same file each time it is drawn."""
    pytest.importorskip("matplotlib")
    _harness.save(echo_results((5, 40), (6, 40)), "echo", tmp_path / "3.14.json")
    pictures = []
    for folder in ("once", "again"):
        _report.write(tmp_path, tmp_path / folder)
        assert (tmp_path / folder / "benchmarks.md").exists()
        pictures.append((tmp_path / folder / "benchmarks" / "echo.svg").read_bytes())
    assert pictures[0] == pictures[1]
    assert b"<svg" in pictures[0]


# -- the command -------------------------------------------------------------------------------------------------------


def test_an_unknown_question(capsys):
    """A question that does not exist is an error that names it."""
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "no such question: nonsense" in capsys.readouterr().err


def test_a_failure_is_told(tmp_path, monkeypatch, capsys):
    """A measurement that fails makes the command fail, after the others were kept."""
    results = echo_results((5, 40))
    results.failed["thread"] = "Traceback"
    monkeypatch.setattr(_harness, "ask", lambda *_: results)
    assert command.main(["--results", str(tmp_path), "echo"]) == 1
    assert "failed: echo of thread" in capsys.readouterr().err
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["echo"]["rounds"] == results.rounds


def test_another_python(monkeypatch):
    """Other Pythons are given the same options, one after the other, and the worst outcome counts."""
    commands = []

    def run(arguments, **_):
        commands.append(arguments)
        return subprocess.CompletedProcess(arguments, len(commands) % 2)

    monkeypatch.setattr(command.subprocess, "run", run)
    assert command.main(["--quick", "--python", "p1", "--python", "p2", "echo"]) == 1
    assert commands == [[python, "-m", "bench", "--quick", "echo"] for python in ("p1", "p2")]
