"""Isolates in programs that run in somebody else's process: servers' workers, a notebook, a test runner's workers."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import pytest

LONG = 60
ROOT = str(Path(__file__).parent.parent)

APPLICATION = """
from subiso import Isolate

def square(number):
    return number * number

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    body = str(await Isolate.run(square, 7)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [str(Isolate.run(square, 7).result()).encode()]
"""


def need(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed here")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
def test_servers(server, tmp_path):
    """A server's worker processes answer by isolates, and end when they are told to."""
    need(server)
    (tmp_path / "application.py").write_text(APPLICATION)
    port = free_port()
    options = {
        "uvicorn": ["application:asgi", f"--port={port}", "--workers=2", "--lifespan=off"],
        "gunicorn": ["application:wsgi", f"--bind=127.0.0.1:{port}", "--workers=2"],
    }[server]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])}
    log = (tmp_path / "log").open("wb")
    with (
        log,
        subprocess.Popen([sys.executable, "-m", server, *options], env=environment, stdout=log, stderr=log) as run,
    ):
        try:
            deadline, answers = time.monotonic() + LONG, []
            while len(answers) < 4 and time.monotonic() < deadline:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LONG) as answer:
                        answers.append(answer.read())
                except OSError:  # it does not listen yet
                    assert run.poll() is None, (tmp_path / "log").read_text()
            assert answers == [b"49"] * 4, (tmp_path / "log").read_text()
            run.send_signal(signal.SIGTERM)
            run.wait(LONG)
        finally:
            run.kill()
    assert "Fatal" not in (tmp_path / "log").read_text()


def test_a_notebook():
    """Cells of a notebook run functions of theirs in isolates, and see what those print."""
    need("nbclient")
    need("ipykernel")
    code = """
    import nbclient, nbformat
    book = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_code_cell("from subiso import Isolate\\ndef f(n):\\n    print('printed')\\n    return n * n"),
        nbformat.v4.new_code_cell("await Isolate.run(f, 7)"),
    ])
    nbclient.NotebookClient(book, timeout=60).execute()
    print([output.get("text") or output["data"]["text/plain"] for output in book.cells[1].outputs])
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=2 * LONG, check=False, env=os.environ | {"PYTHONPATH": ROOT},
    )  # fmt: skip
    assert done.stdout == "['printed\\n', '49']\n", done.stderr


def test_workers_of_a_test_runner(tmp_path):
    """Tests that pytest-xdist distributes use isolates."""
    need("xdist")
    (tmp_path / "test_it.py").write_text(
        "import pytest\nfrom subiso import Isolate\n\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_square(number):\n    assert Isolate.run(pow, number, 2).result() == number**2\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": ROOT}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * LONG, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout
