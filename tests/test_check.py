"""`subiso check` and `subiso doctor`: what they find out about packages that work, fail, crash, hang or are refused."""

import json
import sys
from pathlib import Path

import pytest

from subiso import cli
from subiso.cli import check, doctor, known, probe
from subiso.cli.check import BROKEN, CRASHES, FAILS, IMPORTS, REFUSED, WORKS
from subiso.cli.known import Package

PATIENCE = 60.0  # seconds that a trial may take
IN_ISOLATE = "import subiso; is_main = subiso.Isolate.current().name == 'main'"


def trial(code: str, name: str = "json", **options: int) -> check.Verdict:
    """Check a package with this smoke function, in two isolates unless told otherwise."""
    return check.check(Package(name, [name], code), **{"isolates": 2, "rounds": 2, "timeout": PATIENCE, **options})


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a directory in which modules are found."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# -- verdicts ----------------------------------------------------------------------------------------------------------


def test_a_package_that_works() -> None:
    """The compiled module is loaded in each isolate for itself, and the smoke function gives what it gives in main."""
    pytest.importorskip("msgspec")
    verdict = check.check(known.find("msgspec"), isolates=2, rounds=22, timeout=PATIENCE)
    assert (verdict.verdict, verdict.reason, verdict.modules) == (WORKS, None, ["msgspec._core"])
    assert (verdict.isolates, verdict.rounds) == (2, 22)
    assert all((verdict.seconds_main, verdict.seconds_first, verdict.seconds_at_once))
    assert verdict.memory is None or verdict.memory > 100_000
    assert verdict.version


def test_a_package_without_smoke_function_only_imports() -> None:
    """Without code nothing is known but that it can be imported."""
    assert trial("").verdict == IMPORTS


def test_an_error_in_isolates_is_the_reason() -> None:
    """What raises in an isolate only is a failure, with the error and the stage."""
    verdict = trial(f"{IN_ISOLATE}\nif not is_main: raise RuntimeError('not here')")
    assert verdict.verdict == FAILS
    assert "RuntimeError: not here" in verdict.reason
    assert verdict.reason.startswith("in one isolate")


def test_another_result_than_in_main_is_a_failure() -> None:
    """The smoke function's result must be equal to main's."""
    verdict = trial(f"{IN_ISOLATE}\nis_main")
    assert verdict.verdict == FAILS
    assert "the result is False, not True" in verdict.reason


def test_a_crash_is_told_from_a_failure() -> None:
    """What ends the process by a signal crashes; the reason names the signal and the stage."""
    verdict = trial(f"{IN_ISOLATE}\nimport os, signal\nif not is_main: os.kill(os.getpid(), signal.SIGSEGV)")
    assert verdict.verdict == CRASHES
    assert "in one isolate: SIGSEGV" in verdict.reason


def test_a_process_that_ends_is_a_failure() -> None:
    """What leaves the process without a signal has not worked either."""
    verdict = trial(f"{IN_ISOLATE}\nimport os\nif not is_main: os._exit(0)")
    assert verdict.verdict == FAILS


def test_what_never_ends_is_given_up() -> None:
    """After the time that it may take, it is ended and has failed."""
    verdict = trial(f"{IN_ISOLATE}\nimport threading\nif not is_main: threading.Event().wait()", timeout=5)
    assert verdict.verdict == FAILS
    assert "no end after 5 seconds" in verdict.reason


def test_what_fails_in_main_says_nothing_about_isolates() -> None:
    """What fails without isolates is told apart."""
    verdict = trial("1 / 0")
    assert verdict.verdict == BROKEN
    assert "ZeroDivisionError" in verdict.reason


def test_a_refused_module() -> None:
    """What isolates must not load is refused, with the reason and what would allow it."""
    pytest.importorskip("readline")
    verdict = trial("", "readline")
    assert verdict.verdict == REFUSED
    assert "SUBISO_EXTENSIONS=all" in verdict.reason


def test_a_fallback_in_python_does_not_count(made: Path) -> None:
    """A package whose compiled module is missing in isolates has not worked, though its smoke function has."""
    pytest.importorskip("msgspec")
    code = f"{IN_ISOLATE}\nif is_main: import msgspec._core\n"
    nowhere = Package("json", ["json"], "1", compiled=["json._fast"])
    verdict = check.check(nowhere, isolates=2, rounds=1, timeout=PATIENCE)
    assert (verdict.verdict, verdict.reason) == (BROKEN, "in main, without isolates: no compiled module json._fast")
    (made / "falling_back.py").write_text(code)
    package = Package("falling_back", ["falling_back"], "1", compiled=["msgspec._core"])
    verdict = check.check(package, isolates=2, rounds=1, timeout=PATIENCE)
    assert verdict.verdict == FAILS
    assert "not loaded in each isolate for itself: msgspec._core" in verdict.reason


def test_a_module_at_one_place_is_not_private() -> None:
    """Private are modules that lie at different places in all isolates."""
    assert check._is_private("m", [{"m": 1}, {"m": 2}])
    assert not check._is_private("m", [{"m": 1}, {"m": 1}])
    assert not check._is_private("m", [{"m": 1}, {}])


# -- the smoke functions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "result"), [("1 + 1", "2"), ("x = 3", ""), ("", ""), ("def f():\n    return [4]\nf()", "[4]")]
)
def test_the_last_line_is_the_result(code: str, result: str) -> None:
    """The value of the last line is the result, if it is an expression."""
    assert probe.evaluate(code) == result


@pytest.mark.parametrize("name", sorted(known.table()))
def test_entries_of_the_table(name: str) -> None:
    """Every entry has code that compiles and gives a result; other keys than the documented ones are not there."""
    import ast

    entry = known.table()[name]
    assert set(entry) <= {"cause", "code", "compiled", "import"}
    assert isinstance(ast.parse(entry["code"]).body[-1], ast.Expr)


# -- the command line --------------------------------------------------------------------------------------------------


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """--json writes what was found, and of which Python, on standard output."""
    code = cli.main(["check", "json", "--code", "import json; json.loads('[1]')", "--rounds", "2", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0
    assert report["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    [package] = report["packages"]
    assert (package["package"], package["verdict"], package["rounds"], package["isolates"]) == ("json", WORKS, 2, 4)


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json there is a table, the reasons below it, and exit code 1 if something does not work."""
    code = cli.main(["check", "json", "--code", f"{IN_ISOLATE}\nis_main", "--isolates", "1", "--rounds", "1"])
    out = capsys.readouterr().out
    assert code == 1
    assert "fails" in out
    assert "json: in one isolate: the result is False, not True, as in main" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no-such-package"], "no package 'no-such-package' installed"),
        ([], "say which packages"),
        (["json", "--rounds", "0"], "--rounds must be 1 or more"),
        (["json", "--isolates", "0"], "--isolates must be 1 or more"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    """What makes no sense is an error of one line, with exit code 2."""
    assert cli.main(["check", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_names_of_distributions_and_modules() -> None:
    """A package is found by its distribution's or its module's name, in any spelling."""
    pytest.importorskip("msgspec")
    assert known.find("MSGSPEC").imports == ["msgspec"]
    assert known.find("json").code == ""
    assert known.find("json", "1").code == "1"


# -- the doctor --------------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine that runs these tests, an isolate runs, and a copy can be made."""
    cli.main(["doctor", "--json"])
    findings = {finding["topic"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["an isolate"]["problem"] is None
    assert findings["a copy"]["problem"] is None
    assert findings["Python"]["fact"].startswith("CPython 3.")


def test_doctor_tells_where_copies_cannot_be_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A place for copies that is not there is a problem, with advice and exit code 1."""
    monkeypatch.setenv("SUBISO_COPIES_DIR", str(tmp_path / "missing"))
    assert cli.main(["doctor"]) == 1
    assert "set SUBISO_COPIES_DIR to a directory" in capsys.readouterr().out


def test_doctor_knows_the_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that refuses packages, or that does not exist, is a problem."""
    for policy, text in (("off", "unset SUBISO_EXTENSIONS"), ("of", "no such policy")):
        monkeypatch.setenv("SUBISO_EXTENSIONS", policy)
        [finding] = [one for one in doctor._policy() if one.topic == "extension modules"]
        assert text in finding.problem
