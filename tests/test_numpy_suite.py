"""numpy's own tests, run by pytest inside an isolate: what passes in main passes there. It takes minutes."""

import faulthandler
import json
import subprocess
import sys
from pathlib import Path

import pytest

numpy = pytest.importorskip("numpy")
TIMEOUT = 3600  # seconds
FOLDERS = ("_core/tests", "linalg/tests")
DIFFERENCES = {
    "_core/tests/test_multiarray.py::TestCreation::test_tracemalloc": "tracemalloc is main's; isolates have a stand-in",
}

PROGRAM = '''
import json, sys

def suite(folders, output):
    """Run the tests and write what came of each."""
    import pytest

    class Outcomes(dict):
        def pytest_runtest_logreport(self, report):
            if report.when == "call" or not report.passed:
                self[report.nodeid] = report.outcome

    outcomes = Outcomes()
    options = ["-q", "-q", "-p", "no:cacheprovider", "-m", "not slow", "--tb=no", "-W", "ignore"]
    pytest.main([*options, *folders], plugins=[outcomes])
    with open(output, "w") as file:
        json.dump(outcomes, file)

if __name__ == "__main__":
    where, output, *folders = sys.argv[1:]
    if where == "main":
        suite(folders, output)
    else:
        from subiso import Isolate

        Isolate.run(suite, folders, output).result()
'''


def outcomes(where: str, directory: Path) -> dict[str, str]:
    """Run the suite in main or in an isolate of a process of its own; return the outcome of each test."""
    root = Path(numpy.__file__).parent
    program, output = directory / "program.py", directory / f"{where}.json"
    program.write_text(PROGRAM)
    folders = [str(root / folder) for folder in FOLDERS]
    command = [sys.executable, str(program), where, str(output), *folders]
    subprocess.run(command, check=True, timeout=TIMEOUT, cwd=directory, stdout=subprocess.DEVNULL)
    return {name.rpartition("numpy/")[2]: outcome for name, outcome in json.loads(output.read_text()).items()}


@pytest.mark.stress
def test_numpy_passes_its_tests_in_an_isolate(tmp_path: Path) -> None:
    """Every test that passes in main passes in an isolate, but for the differences that are known."""
    if not (Path(numpy.__file__).parent / FOLDERS[0]).exists():
        pytest.skip("this numpy comes without its tests")
    pytest.importorskip("hypothesis")
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test is far too short for this one
    main, isolate = outcomes("main", tmp_path), outcomes("isolate", tmp_path)
    passing = {name for name, outcome in main.items() if outcome == "passed"}
    assert len(passing) > 10_000
    assert {name for name in passing if isolate.get(name) != "passed"} <= set(DIFFERENCES)
