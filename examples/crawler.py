"""Crawl a site with workers that crash and hang, and lose nothing: a supervised pipeline of isolates.

    python examples/crawler.py [--pages N] [--fetchers N] [--parsers N] [--log]

Fetchers read pages, parsers take them apart, and main keeps what is to be done and what was found. The site is made up
and served on the loopback, with all that goes wrong on a real one: answers of 503, connections that break off, pages in
an unknown encoding, a page that the parser never gets done with, because it has a bug.

The workers do not handle any of that: what goes wrong ends them, and their supervisor starts them again. A worker that
starts says so, on a typed port; if main had given work to it, that was lost with its predecessor, and is tried again,
three times at most. What takes too long is killed, which is a crash like any other.
"""

import argparse
import logging
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urljoin

import msgspec

from subiso import PortClosedError, PortEmpty, ReceivePort, SendPort, Supervisor

TRIES = 3

type Job = tuple[str, bytes]  # an address, and what a stage before has made of it


class Ready(msgspec.Struct, tag=True):
    """A worker has been started, perhaps again, and takes jobs there."""

    worker: str
    port: SendPort


class Fetched(msgspec.Struct, tag=True):
    """A fetcher has read a page."""

    worker: str
    url: str
    content: bytes


class Parsed(msgspec.Struct, tag=True):
    """A parser has taken a page apart."""

    worker: str
    url: str
    links: list[str]
    words: dict[str, int]


class Refused(msgspec.Struct, tag=True):
    """The site has answered that it will not give the page, or not now."""

    worker: str
    url: str
    status: int


type Message = Ready | Fetched | Parsed | Refused


# -- the workers, each in an isolate -----------------------------------------------------------------------------------


def fetch_pages(name: str, crawler: SendPort) -> None:
    """Fetch page after page. A connection that breaks off ends this."""
    with ReceivePort[Job](end_with_senders=False) as jobs:
        crawler.send(Ready(name, jobs.send_port))
        for url, _ in jobs:
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    crawler.send(Fetched(name, url, answer.read()))
            except urllib.error.HTTPError as error:
                crawler.send(Refused(name, url, error.code))


class Page(HTMLParser):
    """The links and the words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    def handle_data(self, data: str) -> None:
        self.words.update(data.lower().split())


def without_comments(text: str) -> str:
    """Take the comments out of a page. A bug is left in on purpose: a comment that does not end."""
    while (begin := text.find("<!--")) >= 0:
        end = text.find("-->", begin)
        text = text[:begin] + (text[end + 3 :] if end >= 0 else text[begin:])
    return text


def parse_pages(name: str, crawler: SendPort) -> None:
    """Parse page after page. One in an unknown encoding ends this."""
    with ReceivePort[Job](end_with_senders=False) as jobs:
        crawler.send(Ready(name, jobs.send_port))
        for url, content in jobs:
            page = Page()
            page.feed(without_comments(content.decode()))
            crawler.send(Parsed(name, url, [urljoin(url, link) for link in page.links], page.words))


# -- main --------------------------------------------------------------------------------------------------------------


class Stage:
    """The workers that do one kind of job, the jobs that wait for them, and those that they have."""

    def __init__(self, worker: Callable[[str, SendPort], None], count: int, crawler: SendPort, patience: float) -> None:
        self.patience = patience
        self.supervisor = Supervisor(max_restarts=1000, within=1.0, name=worker.__name__)
        names = [f"{worker.__name__}-{number}" for number in range(1, count + 1)]
        self.children = {name: self.supervisor.add(worker, name, crawler, name=name) for name in names}
        self.ports: dict[str, SendPort] = {}
        self.idle: list[str] = []
        self.busy: dict[str, tuple[Job, float]] = {}  # until when
        self.waiting: deque[Job] = deque()
        self.tries: Counter[str] = Counter()
        self.lost: dict[str, str] = {}  # the addresses that were given up, and why

    @property
    def is_done(self) -> bool:
        return not self.waiting and not self.busy

    @property
    def restarts(self) -> int:
        return sum(child.starts - 1 for child in self.children.values())

    def add(self, job: Job) -> None:
        """Have a job done."""
        self.waiting.append(job)
        self.hand_out()

    def welcome(self, worker: str, port: SendPort) -> None:
        """Note that a worker was started. What its predecessor had is tried again."""
        self.ports[worker] = port
        if worker in self.busy:
            self.fail(self.busy[worker][0], "the worker has crashed")
        self.free(worker)

    def free(self, worker: str) -> None:
        """Note that a worker has nothing to do."""
        self.busy.pop(worker, None)
        if worker not in self.idle:
            self.idle.append(worker)
        self.hand_out()

    def fail(self, job: Job, reason: str) -> None:
        """Try a job again, unless that was done often enough."""
        url = job[0]
        self.tries[url] += 1
        if self.tries[url] < TRIES:
            self.waiting.append(job)
        else:
            self.lost[url] = reason

    def hand_out(self) -> None:
        """Give idle workers what waits."""
        while self.waiting and self.idle:
            worker, job = self.idle.pop(), self.waiting.popleft()
            self.busy[worker] = job, time.monotonic() + self.patience
            try:
                self.ports[worker].send(job)
            except PortClosedError:  # it has just ended; its successor will say that it is ready
                pass

    def kill_late(self) -> None:
        """Kill the workers that take too long. Their supervisor starts them again."""
        for worker, (job, until) in self.busy.items():
            isolate = self.children[worker].isolate
            if time.monotonic() > until and isolate is not None:
                isolate.kill()
                self.busy[worker] = job, time.monotonic() + self.patience


class Crawler:
    """What was found, and what is still to be looked at."""

    def __init__(self, start: str, fetchers: int, parsers: int, patience: float) -> None:
        self.patience = patience
        self.port = ReceivePort(Message, end_with_senders=False)
        self.fetching = Stage(fetch_pages, fetchers, self.port.send_port, patience)
        self.parsing = Stage(parse_pages, parsers, self.port.send_port, patience)
        self.seen = {start}
        self.words: Counter[str] = Counter()
        self.pages = 0
        self.fetching.add((start, b""))

    def run(self) -> None:
        """Crawl until everything has been seen, or given up."""
        with self.port, Supervisor(name="crawler") as root:
            root.add_supervisor(self.fetching.supervisor)
            root.add_supervisor(self.parsing.supervisor)
            while not (self.fetching.is_done and self.parsing.is_done):
                try:
                    self.handle(self.port.receive(timeout=self.patience / 4))
                except PortEmpty:
                    pass
                self.fetching.kill_late()
                self.parsing.kill_late()

    def handle(self, message: Message) -> None:
        """Do what follows from a message."""
        match message:
            case Ready(worker, port):
                stage = self.fetching if worker in self.fetching.children else self.parsing
                stage.welcome(worker, port)
            case Fetched(worker, url, content):
                self.fetching.free(worker)
                self.parsing.add((url, content))
            case Refused(worker, url, status):
                if status == 503:
                    self.fetching.fail((url, b""), "it is unavailable")
                else:
                    self.fetching.lost[url] = f"the answer is {status}"
                self.fetching.free(worker)
            case Parsed(worker, _, links, words):
                self.parsing.free(worker)
                self.pages += 1
                self.words.update(words)
                for link in links:
                    if link not in self.seen:
                        self.seen.add(link)
                        self.fetching.add((link, b""))


# -- the site ----------------------------------------------------------------------------------------------------------


class Site(BaseHTTPRequestHandler):
    """So many pages, each with links to others, and some with a fault."""

    protocol_version = "HTTP/1.0"
    pages = 0
    visits: ClassVar = Counter[int]()

    def do_GET(self) -> None:
        number = int(self.path.strip("/") or 0)
        Site.visits[number] += 1
        first = Site.visits[number] == 1
        if number >= self.pages:
            self.send_error(404)
        elif first and number % 17 == 5:
            self.send_error(503)
        else:
            body = self.make_page(number)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if first and number % 19 == 7 else body)

    def make_page(self, number: int) -> bytes:
        chance = random.Random(number)
        words = chance.choices(["isolate", "port", "message", "worker", "supervisor", "crash", "queue"], k=300)
        links = [2 * number + 1, 2 * number + 2, chance.randrange(self.pages)]
        text = " ".join(words) + "".join(f'<p><a href="/{link}">page {link}</a></p>' for link in links)
        if number % 41 == 13:
            text += "<!-- this does not end"
        return text.encode("utf-16" if number % 29 == 11 else "utf-8")

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", metavar="N", type=int, default=200, help="of the site (200)")
    parser.add_argument("--fetchers", metavar="N", type=int, default=4)
    parser.add_argument("--parsers", metavar="N", type=int, default=2)
    parser.add_argument("--patience", metavar="S", type=float, default=1.0, help="seconds that a page may take (1)")
    parser.add_argument("--log", action="store_true", help="show each crash and restart")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.WARNING if options.log else logging.CRITICAL)
    Site.pages = options.pages
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    begin = time.perf_counter()
    try:
        start = f"http://127.0.0.1:{server.server_port}/0"
        crawler = Crawler(start, options.fetchers, options.parsers, options.patience)
        crawler.run()
    finally:
        server.shutdown()
        server.server_close()
    lost = {**crawler.fetching.lost, **crawler.parsing.lost}
    print(f"{crawler.pages} of {len(crawler.seen)} pages in {time.perf_counter() - begin:.1f} s")
    for name, stage in ("fetchers", crawler.fetching), ("parsers", crawler.parsing):
        print(f"{name} were started again {stage.restarts} times")
    for reason, count in Counter(lost.values()).most_common():
        print(f"{count} pages were given up: {reason}")
    print("most frequent:", ", ".join(f"{word} {count}" for word, count in crawler.words.most_common(5)))


if __name__ == "__main__":
    main()
