"""The command line: what the demo counts, the four ways to count it, and how `subiso demo` talks and fails."""

import contextlib
import errno
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from subiso import cli
from subiso._kernel.limits import Limits
from subiso.cli import demo, measuring, ways
from subiso.cli.analysis import Module, analyse, analyse_all

PATIENCE = 60  # seconds that a whole demo may take
MOST = min(1000, Limits.isolates)  # workers that this machine can hold
BROKEN = os.fsdecode(b"[bold]\xff.py")  # a name that is markup, and no text


def analysed(directory: Path, source: str | bytes) -> Module:
    """Return what is found in a file with this source."""
    file = directory / "module.py"
    file.write_bytes(source.encode() if isinstance(source, str) else source)
    return analyse(str(file))


# -- the analysis ------------------------------------------------------------------------------------------------------


def test_counts(tmp_path: Path) -> None:
    """Functions at any depth, classes, methods and branches are counted; the most complex function is named."""
    module = analysed(
        tmp_path,
        """\
if __name__ == "__main__":
    pass

def plain():
    return 1

class Outer:
    class Inner:
        async def method(self):
            for _ in ():
                def nested(a):
                    return 1 if a else 2

    def other(self):
        while True:
            if self:
                break
            elif not self:
                continue
""",
    )
    assert module.lines == 19
    assert (module.functions, module.classes, module.methods, module.branches) == (2, 2, 2, 6)
    assert (module.max_complexity, module.most_complex) == (4, "other")
    assert module.mean_complexity == (1 + 2 + 2 + 4) / 4
    assert module.error is None


@pytest.mark.parametrize(
    ("body", "complexity"),
    [
        pytest.param("pass", 1, id="nothing"),
        pytest.param("a and b and c or d", 4, id="and-or"),
        pytest.param("a if b else c", 2, id="conditional"),
        pytest.param("[a for a in b if a if not a for c in a]", 5, id="comprehension"),
        pytest.param("try: pass\n except A: pass\n except B: pass\n finally: pass", 3, id="except"),
        pytest.param("match a:\n  case 1: pass\n  case _: pass", 3, id="match"),
        pytest.param("for a in b: pass\n else: pass", 2, id="for"),
        pytest.param("return lambda: a if b else c", 2, id="lambda"),
        pytest.param("f'{a if b else c}'", 2, id="f-string"),
        pytest.param("with a as b: pass", 1, id="with"),
    ],
)
def test_complexity(tmp_path: Path, body: str, complexity: int) -> None:
    """The complexity of a function is one more than its branches."""
    assert analysed(tmp_path, f"def f():\n {body}\n").max_complexity == complexity


def test_module_without_functions(tmp_path: Path) -> None:
    """An empty file has no lines, and no complexity."""
    assert analysed(tmp_path, "") == Module(str(tmp_path / "module.py"))


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(b"# -*- coding: latin-1 -*-\ndef caf\xe9(): pass\n", id="declared"),
        pytest.param("\ufeff\ndef café(): pass\n".encode(), id="mark"),
        pytest.param("\r\ndef café(): pass\r\n".encode(), id="utf-8"),
    ],
)
def test_encodings(tmp_path: Path, source: bytes) -> None:
    """A source is read in the encoding that it declares, UTF-8 if it declares none."""
    module = analysed(tmp_path, source)
    assert (module.error, module.most_complex, module.lines) == (None, "café", 2)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param(b"x = 1\ndef (:\n", "SyntaxError: invalid syntax (line 2)", id="syntax"),
        pytest.param(b"x = '\xff'\n", "SyntaxError", id="bytes"),
        pytest.param(b"# coding: nonsense\n", "SyntaxError", id="encoding"),
        pytest.param(b"x = 1\0\n", "SyntaxError", id="null"),
        pytest.param(b"(" * 500 + b")" * 500, "SyntaxError: too many nested parentheses", id="nesting"),
        pytest.param(b"-" * 100_000 + b"1", "Error", id="depth"),
    ],
)
def test_unparsable(tmp_path: Path, source: bytes, reason: str) -> None:
    """A file that does not parse gives a result that says why."""
    module = analysed(tmp_path, source)
    assert reason in (module.error or "")
    assert (module.lines, module.functions) == (len(source.splitlines()), 0)


def test_deep_code(tmp_path: Path) -> None:
    """Code that is nested as deeply as the parser allows is counted without recursion."""
    assert analysed(tmp_path, "def f():\n return " + " + ".join("1" * 900)).functions == 1


def test_unreadable(tmp_path: Path) -> None:
    """A file that cannot be read gives a result that says why."""
    assert analyse(str(tmp_path / "nowhere.py")).error == "FileNotFoundError: No such file or directory"


# -- the sources -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small source tree with much that can go wrong."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("def f(a):\n    return a or 1\n")
    (tmp_path / "package" / "other.py").write_text("class A:\n    def m(self): pass\n")
    (tmp_path / BROKEN).write_text("def (:\n")
    (tmp_path / "escape.py").write_text("'\\d'\n")  # a SyntaxWarning
    (tmp_path / "no source.txt").write_text("x")
    (tmp_path / "link.py").symlink_to("nowhere")
    (tmp_path / "round").symlink_to(".")
    (tmp_path / "directory.py").mkdir()
    (tmp_path / "empty.py").touch()
    os.mkfifo(tmp_path / "pipe.py")
    return tmp_path


def test_find_sources(tree: Path) -> None:
    """Every file that is called .py is found once; directories, pipes and linked directories are not looked into."""
    root, sizes = demo.find_sources(str(tree))
    assert root == str(tree)
    assert {os.path.relpath(path, root) for path in sizes} == {
        *("package/module.py", "package/other.py", BROKEN, "escape.py", "empty.py", "link.py")
    }


def test_find_sources_of_the_standard_library() -> None:
    """Without a path the standard library is meant, without what was installed into it."""
    root, sizes = demo.find_sources(None)
    assert os.path.join(root, "ast.py") in sizes
    assert not [path for path in sizes if "site-packages" in path.split(os.sep)]


def test_chunked() -> None:
    """Chunks hold every file once: the smallest alone first, then the largest, then the others in falling order."""
    sizes = {f"{number}.py": number * 1000 for number in range(200)}
    chunks = demo.chunked(sizes)
    assert chunks[0] == ["0.py"]
    assert [path for chunk in chunks[1:] for path in chunk] == [f"{number}.py" for number in range(199, 0, -1)]
    assert all(sum(sizes[path] for path in chunk[:-1]) < demo.CHUNK for chunk in chunks)
    assert demo.chunked({"only.py": 0}) == [["only.py"]]


# -- the ways ----------------------------------------------------------------------------------------------------------

each_way = pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in ways.WAYS.items()])
quietly = pytest.mark.filterwarnings("ignore::SyntaxWarning")  # as errors they would keep a file from being parsed


@quietly
@each_way
def test_ways_agree(way: "ways.Way", tree: Path) -> None:
    """Every way gives the result of every file."""
    chunks = [[path] for path in demo.find_sources(str(tree))[1]]
    found = [module for modules in way(chunks, 2) for module in modules]
    assert sorted(found) == sorted(analyse_all([path for [path] in chunks]))


@quietly
@each_way
def test_ways_with_more_workers_than_chunks(way: "ways.Way", tree: Path) -> None:
    """Workers that find no work do no harm."""
    path = str(tree / "escape.py")
    assert [*way([[path]], 3)] == [[analyse(path)]]


@each_way
def test_ways_surface_errors(way: "ways.Way") -> None:
    """What goes wrong in a worker is raised, and nothing waits for its results."""
    with contextlib.closing(way([[None]], 2)) as results, pytest.raises((TypeError, RuntimeError), match="NoneType"):  # type: ignore[list-item]
        list(results)


@quietly
@each_way
def test_ways_can_be_left(way: "ways.Way", tree: Path) -> None:
    """A way that is closed early ends what it has started."""
    results = way([[str(tree / "escape.py")]] * 50, 2)
    next(results)
    results.close()
    with pytest.raises(StopIteration):
        next(results)


def test_isolates_notice_that_one_has_left(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    """An isolate that ends without an error and without its results is noticed."""

    def leave(results: object) -> None:
        raise SystemExit

    monkeypatch.setattr(ways, "_work", leave)
    with pytest.raises(RuntimeError, match="work undone"):
        list(ways.isolates([[str(tree / "empty.py")]], 2))


def test_peak_memory() -> None:
    """What is allocated while memory is watched is seen."""
    with measuring.PeakMemory() as memory:
        block = b"x" * (64 << 20)
    assert memory.extra is None or memory.extra > 0.9 * len(block)


# -- the command -------------------------------------------------------------------------------------------------------


def start(*arguments: object, **options: object) -> "subprocess.Popen[str]":
    """Start the command line in a process group of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    return subprocess.Popen(
        [sys.executable, "-m", "subiso", *map(str, arguments)],
        env={**environment, "COLUMNS": "100", "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        text=True,
        process_group=0,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


def outcome(*arguments: object) -> tuple[int, str, str]:
    """Run the command line; return its exit code, and what it wrote on stdout and stderr."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def test_json(tree: Path) -> None:
    """With --json, the result is all that is on stdout: four equal ways, what failed, and each module's figures."""
    code, out, _ = outcome("demo", "--path", tree, "--workers", 2, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["equal"] is True
    assert (report["files"], report["workers"], report["path"]) == (6, 2, str(tree))
    assert [way["way"] for way in report["ways"]] == [*ways.WAYS]
    assert all(0 <= way["startup_seconds"] <= way["seconds"] for way in report["ways"])
    assert {failure["path"] for failure in report["failures"]} == {BROKEN, "link.py"}
    modules = {module["path"]: module for module in report["modules"]}
    assert modules["package/module.py"]["max_complexity"] == 2
    assert report["totals"] == {"lines": 6, "functions": 1, "classes": 1, "methods": 1, "branches": 1}


def test_without_terminal(tree: Path) -> None:
    """Where there is no terminal, progress is plain lines, and the failures, the costs and their meaning follow."""
    code, out, err = outcome("demo", "--path", tree)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    for name in ways.WAYS:
        assert f"\n{name}: 6 of 6 files\n" in out
        assert f"│ {name} " in out
    assert "Could not be parsed: 2 files\n  [bold]\\udcff.py: SyntaxError: invalid syntax (line 1)\n" in out
    assert "The four results are equal." in out
    assert "isolate" in out.splitlines()[-1]


def test_in_terminal(tree: Path) -> None:
    """In a terminal, progress is drawn in place, and nothing but that differs."""
    ours, theirs = pty.openpty()
    shown = b""
    with start("demo", "--path", tree, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with contextlib.suppress(OSError):  # how the end looks
            while read := os.read(ours, 65536):
                shown += read
    os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[?25l" in shown  # no cursor while a bar is drawn
    assert b"\x1b[?25h" in shown
    assert "━" in shown.decode()
    assert b"The four results are equal." in shown


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["--path", "/nowhere/at all"], "subiso: no such directory: /nowhere/at all\n", id="path"),
        pytest.param(["--path", __file__], f"subiso: no such directory: {__file__}\n", id="file"),
        pytest.param(["--workers", "0"], f"subiso: --workers must be 1 to {MOST}, not 0\n", id="zero"),
        pytest.param(["--workers", "-1"], f"subiso: --workers must be 1 to {MOST}, not -1\n", id="negative"),
        pytest.param(["--workers", "1001"], f"subiso: --workers must be 1 to {MOST}, not 1001\n", id="too many"),
    ],
)
def test_bad_arguments(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A path that is not there, or no number of workers to work with, is an error of one line, with exit code 2."""
    assert cli.main(["demo", *arguments]) == 2
    assert capsys.readouterr() == ("", line)


def test_tree_without_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tree without a .py file is an error of one line, with exit code 2."""
    assert cli.main(["demo", "--path", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", f"subiso: no .py file in {tmp_path}\n")


def test_no_isolates(tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A way for which the system has not enough is an error of one line, with exit code 2."""

    def refused(chunks: list[list[str]], workers: int) -> "ways.Results":
        yield from ways.one_thread(chunks[:1], workers)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setitem(ways.WAYS, "isolates", refused)
    assert cli.main(["demo", "--path", str(tree), "--workers", "2"]) == 2
    said = "subiso: isolates: 2 workers are too many here: [Errno 24] Too many open files\n"
    assert capsys.readouterr().err == said


def test_program_exit_code() -> None:
    """The program ends with the code that the command gives."""
    assert outcome("demo", "--path", "/nowhere") == (2, "", "subiso: no such directory: /nowhere\n")


def test_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, the program says what it takes."""
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 2
    assert "usage: subiso" in capsys.readouterr().err


def test_different_results(tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a way gives something else, it is named, and the exit code is 1."""

    def forgetful(chunks: list[list[str]], workers: int) -> "ways.Results":
        yield from list(ways.one_thread(chunks, workers))[1:]

    for name in ways.WAYS:
        monkeypatch.setitem(ways.WAYS, name, forgetful if name == "thread pool" else ways.one_thread)
    assert cli.main(["demo", "--path", str(tree)]) == 1
    out = capsys.readouterr().out
    assert "The results of the thread pool differ from those of one thread." in out
    assert "are equal" not in out


@pytest.mark.parametrize("way", ["one thread", "thread pool", "process pool", "isolates"])
def test_interrupt(way: str, tmp_path: Path) -> None:
    """Ctrl-C ends the demo with one line and exit code 130, in whatever way it is, and leaves no process behind."""
    for number in range(60):
        (tmp_path / f"{number}.py").write_text("def f(a): return [b for b in a if b and b - 1]\n" * 200)
    with start("demo", "--path", tmp_path, "--workers", 2) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith(way):
            assert line
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)  # to the end of the streams: nobody holds them any more
    assert (process.returncode, err) == (130, "subiso: interrupted\n")
    assert "equal" not in out
