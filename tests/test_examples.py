"""The programs in examples/: each does what its docstring says. `tox -e examples` has the packages that they need."""

import asyncio
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from conftest import LONG

from subiso import IsolateKilled, IsolatePool

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example under a name that isolates do not find: what they are sent goes by value, as a script's."""
    monkeypatch.syspath_prepend(EXAMPLES)
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def run(name: str, *options: object, cwd: Path, timeout: float = 3 * LONG) -> str:
    """Run an example as a user does, and return what it prints."""
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, options)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def examples() -> list[Path]:
    return sorted(EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_docstring_says_how_to_run_it(path: Path) -> None:
    """An example opens with a docstring; one with options tells the command."""
    text = path.read_text()
    assert text.startswith('"""')
    if "argparse" in text:
        assert f"python examples/{path.name}" in text.split('"""')[1]


@pytest.mark.parametrize("name", ["seed_spawn", "seed_listen"])
def test_first_programs_print_the_result(name: str, tmp_path: Path) -> None:
    """The programs of the README print what their isolate has computed."""
    assert run(name, cwd=tmp_path).strip() == str(sum(n * n for n in range(1_000_000)))


def test_pool_progress_counts_primes(tmp_path: Path) -> None:
    """The live view ends with the number of primes."""
    assert "41538 primes below 500000" in run("pool_progress", cwd=tmp_path)


# -- the log -----------------------------------------------------------------------------------------------------------


def make_log(path: Path, lines: int) -> list[dict[str, object]]:
    """Write a log, with lines that are no requests between the others; return the requests."""
    chance = random.Random(2)
    requests: list[dict[str, object]] = []
    with path.open("w") as file:
        for number in range(lines):
            section = chance.choice(["a", "bé", "c"])  # é: two bytes, so that bytes are not characters
            request = {"path": f"/{section}/{number}", "status": chance.choice([200, 404, 500, 503])}
            request |= {"milliseconds": chance.uniform(0, 3000), "bytes": chance.randrange(10**6)}
            requests.append(request)
            file.write(json.dumps(request, ensure_ascii=False) + ("\n" if number < lines - 1 else ""))
            if number % 100 == 0:
                file.write('{"path": "/a", "status": "fine"}\n\n')
    return requests


def test_log_parts_give_the_summary_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of any size, each summarised in an isolate, add up to what a simple count of the whole file finds."""
    module = load("log_summary", monkeypatch)
    path = tmp_path / "log.jsonl"
    requests = make_log(path, 2000)
    parts = list(module.parts_of(path, 7000))
    assert len(parts) > 10
    assert [begin for begin, _ in parts[1:]] == [end for _, end in parts[:-1]]
    with IsolatePool(2) as pool:
        whole = module.combine(pool.map(lambda part: module.summarise(path, *part), parts))
    assert whole.broken == 40
    for name in ("a", "bé", "c"):
        mine = [one for one in requests if one["path"].split("/")[1] == name]
        section = whole.sections[name]
        assert section.requests == len(mine)
        assert section.errors == sum(one["status"] >= 500 for one in mine)
        assert section.bytes == sum(one["bytes"] for one in mine)
        exact = sorted(one["milliseconds"] for one in mine)[len(mine) // 2]
        assert section.percentile(0.5) == pytest.approx(exact, rel=0.06)


def test_log_program_reads_a_given_file(tmp_path: Path) -> None:
    """The program prints a table of the file it is given, and finds the same in every other way."""
    make_log(tmp_path / "log.jsonl", 500)
    out = run("log_summary", "log.jsonl", "--workers", 2, "--compare", cwd=tmp_path)
    assert "10 lines were no requests" in out
    assert "bé" in out
    assert all(f"{way} " in out for way in ("one thread", "threads", "processes", "isolates"))


def test_log_program_makes_up_a_file(tmp_path: Path) -> None:
    """Without a file, the program makes one up."""
    assert "5 lines were no requests" in run("log_summary", "--lines", 5000, "--workers", 2, cwd=tmp_path)


# -- the crawler -------------------------------------------------------------------------------------------------------


def test_crawler_loses_only_what_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crashes, hangs and refusals end in restarts; every page is seen but those that fail each time."""
    module = load("crawler", monkeypatch)
    monkeypatch.setattr(module, "TRIES", 2)
    monkeypatch.setattr(module.Site, "pages", 30)
    monkeypatch.setattr(module.Site, "visits", Counter())
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.Site)
    server.daemon_threads = False
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        crawler = module.Crawler(f"{base}/0", 2, 2, patience=3)
        crawler.run()
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
    # 11 is in UTF-16, 13 has a comment without an end; what only they link to is not seen.
    assert crawler.parsing.lost == {f"{base}/{number}": "the worker has crashed" for number in (11, 13)}
    assert set(crawler.fetching.lost.values()) == {"the answer is 404"}
    there = {url for url in crawler.seen if int(url.rpartition("/")[2]) < 30}
    assert crawler.pages == len(there) - 2
    assert sum(crawler.words.values()) >= 300 * crawler.pages
    assert crawler.fetching.restarts >= 2  # 7 and 26 break off
    assert crawler.parsing.restarts >= 4  # 11 and 13, two times each
    assert module.Site.visits[5] == 2  # 503 at first


def test_crawler_program_reports(tmp_path: Path) -> None:
    """The program tells what it has found and how often workers were started again."""
    out = run("crawler", "--pages", 12, "--fetchers", 1, "--parsers", 1, "--patience", 5, cwd=tmp_path)
    assert "started again" in out
    assert "pages in" in out


# -- with other packages -----------------------------------------------------------------------------------------------


def test_thumbnails_are_made_and_broken_files_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture gets a thumbnail, the right way up, and its colours; a broken one gets an error."""
    image = pytest.importorskip("PIL.Image")
    module = load("thumbnails", monkeypatch)
    wide = image.new("RGB", (900, 300), (200, 30, 30))
    wide.paste((20, 20, 220), (0, 0, 200, 300))
    exif = image.Exif()
    exif[0x112] = 6  # turned by 90 degrees
    wide.save(tmp_path / "turned.jpg", exif=exif)
    wide.save(tmp_path / "wide.png")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:500])
    (tmp_path / "text.txt").write_text("no picture")
    out = run("thumbnails", ".", "--out", "out", "--size", 90, "--workers", 2, "--compare", cwd=tmp_path)
    assert "2 thumbnails in" in out
    assert "broken.jpg: " in out
    for name, size in ("turned.jpg", (30, 90)), ("wide.png", (90, 30)):
        with image.open(tmp_path / "out" / f"{name}.webp") as thumbnail:
            assert thumbnail.size == size
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<figure") == 2
    made = module.make_thumbnail(tmp_path, 90, tmp_path / "wide.png")
    first = bytes.fromhex(made.colours[0][1:])
    assert all(abs(one - other) < 8 for one, other in zip(first, (200, 30, 30), strict=True))


def test_thumbnails_program_makes_up_pictures(tmp_path: Path) -> None:
    """Without a folder, the program makes pictures up."""
    pytest.importorskip("PIL")
    assert "2 thumbnails in" in run("thumbnails", "--samples", 2, cwd=tmp_path)


async def start_service(module: ModuleType, pool: IsolatePool, limit: float) -> tuple[object, str]:
    """Start the service as `web.run_app` does; return what stops it, and its address."""
    from aiohttp import web

    runner = web.AppRunner(module.make_app(pool, limit), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


def work_without_end(started: str, ended: str) -> None:
    """Tell of the begin and the end through files, which need no pool."""
    Path(started).touch()
    try:
        while True:
            pass
    except IsolateKilled:
        Path(ended).touch()
        raise


async def exists(path: str) -> None:
    """Wait until a file is there."""
    async with asyncio.timeout(LONG):
        while not os.path.exists(path):  # noqa: ASYNC240
            await asyncio.sleep(0.01)


def test_service_answers_and_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is summarised; what is no order is refused with the reason, before a worker sees it."""
    aiohttp = pytest.importorskip("aiohttp")
    module = load("service", monkeypatch)
    text = "The whale swam north. A cat slept. Ships hunted the whale in the north. Rain fell."

    async def main() -> None:
        with IsolatePool(1) as pool:
            runner, address = await start_service(module, pool, LONG)
            async with aiohttp.ClientSession() as client:
                async with client.post(f"{address}summary", json={"text": text, "sentences": 2}) as answer:
                    found = await answer.json()
                    assert answer.status == 200
                assert found["sentences"] == ["The whale swam north.", "Ships hunted the whale in the north."]
                assert set(found["keywords"]) >= {"whale", "north"}
                async with client.post(f"{address}summary", json={"text": text, "sentences": "two"}) as answer:
                    assert answer.status == 400
                    assert "$.sentences" in (await answer.json())["error"]
                async with client.post(f"{address}summary", data=b"no JSON") as answer:
                    assert answer.status == 400
                async with client.get(address) as answer:
                    assert (await answer.json())["done"] == 1
            await runner.cleanup()

    asyncio.run(main())


def test_service_kills_work_whose_client_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the client goes away the running work is killed, and the only worker is free for the next request."""
    aiohttp = pytest.importorskip("aiohttp")
    module = load("service", monkeypatch)
    started, ended = str(tmp_path / "started"), str(tmp_path / "ended")
    summarise = module.summarise
    monkeypatch.setattr(module, "summarise", lambda *_: work_without_end(started, ended))

    async def main() -> None:
        with IsolatePool(1) as pool:
            runner, address = await start_service(module, pool, 100 * LONG)
            async with aiohttp.ClientSession() as client:
                asking = asyncio.create_task(client.post(f"{address}summary", json={"text": "Text."}))
                await exists(started)
                asking.cancel()  # which closes the connection
                await asyncio.gather(asking, return_exceptions=True)
                await exists(ended)
                module.summarise = summarise
                async with client.post(f"{address}summary", json={"text": "Text."}) as answer:
                    assert answer.status == 200
            await runner.cleanup()

    asyncio.run(main())


def test_service_kills_work_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that takes longer than the limit is killed, and its client is told."""
    aiohttp = pytest.importorskip("aiohttp")
    module = load("service", monkeypatch)
    started, ended = str(tmp_path / "started"), str(tmp_path / "ended")
    monkeypatch.setattr(module, "summarise", lambda *_: work_without_end(started, ended))

    async def main() -> None:
        with IsolatePool(1) as pool:
            runner, address = await start_service(module, pool, 1)
            async with aiohttp.ClientSession() as client:
                while not os.path.exists(started):  # noqa: ASYNC240 # a slow machine may not get to the work in time
                    async with client.post(f"{address}summary", json={"text": "Text."}) as answer:
                        assert answer.status == 503
            await exists(ended)
            await runner.cleanup()

    asyncio.run(main())


def test_fractal_draws_with_either_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app draws lines with isolates and, after a key, with threads; keys change the view."""
    pytest.importorskip("textual")
    module = load("fractal", monkeypatch)

    async def main() -> None:
        app = module.Fractal(2)
        async with app.run_test(size=(60, 20)) as pilot, asyncio.timeout(2 * LONG):

            async def drawn(more: int) -> None:
                goal = app.computed + more
                while app.computed < goal:
                    await pilot.pause(0.01)

            await drawn(5)
            frames = len(app.query_one(module.Comet).painted)
            assert frames
            picture = app.query_one(module.Picture)
            assert any(any(line) for line in picture.lines.values())
            assert isinstance(app.pool, IsolatePool)
            await pilot.press("plus")
            assert app.view.width < 3.0 * 0.7
            await pilot.press("t")
            assert not isinstance(app.pool, IsolatePool)
            await drawn(5)
            while len(app.query_one(module.Comet).painted) == frames:
                await pilot.pause(0.01)
            assert "threads" in str(app.query_one("#mode").render())

    asyncio.run(main())


def test_fractal_lines_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of the set are 0; those outside tell after how many rounds they have escaped."""
    pytest.importorskip("textual")
    module = load("fractal", monkeypatch)
    line = module.compute_line(module.View(0.0, 0.0, 4.0), 4, 0.0)  # -2, -1, 0 and 1
    assert line == bytes([0, 0, 0, 3])


def test_fractal_compares(tmp_path: Path) -> None:
    """Without a terminal, the program measures every way and ends."""
    pytest.importorskip("textual")
    out = run("fractal", "--compare", 1, "--workers", 2, cwd=tmp_path)
    assert [line.split()[0] for line in out.splitlines()] == ["nothing", "isolates", "threads"]


@pytest.mark.filterwarnings("ignore")  # of the packages that run it
def test_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell runs; results, and what isolates print, are those that the notebook shows."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    kept = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    ran = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(ran, timeout=3 * LONG, kernel_name="python3").execute(env=dict(os.environ))
    assert [results(cell) for cell in ran.cells] == [results(cell) for cell in kept.cells]
    printed = "".join(printed_by(cell) for cell in ran.cells)
    assert {f"seed {seed} gives" in printed for seed in range(8)} == {True}
    assert "caught: divide by zero" in printed
    assert "stopped: " in printed


def results(cell: dict) -> list[str]:
    return [one["data"]["text/plain"] for one in cell.get("outputs", ()) if one["output_type"] == "execute_result"]


def printed_by(cell: dict) -> str:
    return "".join(one["text"] for one in cell.get("outputs", ()) if one["output_type"] == "stream")
