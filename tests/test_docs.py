"""Every block of Python in the README and on the pages of the documentation runs, and prints what the page says.

A page is one program: its blocks run one after the other, in a process of its own. What HTML comments in the page's
source may say about that:

- ``<!-- each block is a program -->``, anywhere: every block has a process of its own.
- ``<!-- needs: numpy, dask -->``, anywhere: the page is skipped where these modules are not installed.
- ``<!-- not run: the reason -->``, right before a block: it is only compiled.

A block marked ``text`` right behind one of Python is what that prints; ``...`` in it stands for anything.
"""

import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from markdown_it import MarkdownIt

import subiso

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(page for page in sorted(ROOT.glob("docs/**/*.md")) if "_build" not in page.parts)]
LONG = 120  # seconds: the bound of a page, which should take one or two
BETWEEN = "--- here the block ends that begins in line %d ---"
INVENTORY = ROOT / "docs" / "_build" / "html" / "objects.inv"  # of what Sphinx has documented
INSIDE = {f"subiso.Child.{name}" for name in ("start", "stop", "ended_well", "give_up")}  # for supervisors only
DISGUISES = re.compile(r"py\b|pycon|python.|ipython|\{code(-block)?\} *(py|ipy)")


class Block(NamedTuple):
    """A block of Python: where it begins, its code and, if the page says, what it prints and why it cannot run."""

    first_line: int
    code: str
    output: str | None
    not_run: str | None


def fences_of(page: Path) -> list:
    """Return the fenced blocks and HTML comments of a page, as markdown-it's tokens."""
    return [token for token in MarkdownIt().parse(page.read_text()) if token.type in {"fence", "html_block"}]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of Python of a page."""
    tokens = fences_of(page)
    lines = page.read_text().splitlines()
    blocks = []
    for number, token in enumerate(tokens):
        if token.type != "fence" or token.info.strip() != "python":
            continue
        before, after = tokens[number - 1] if number else None, tokens[number + 1 : number + 2]
        not_run = before and re.fullmatch(r"<!-- not run: (.+) -->\s*", before.content, re.DOTALL)
        if not_run and "".join(lines[before.map[1] : token.map[0]]).strip():
            not_run = None  # it belongs to something else
        output = None
        if after and after[0].info.strip() == "text" and not "".join(lines[token.map[1] : after[0].map[0]]).strip():
            output = after[0].content
        blocks.append(Block(token.map[0] + 1, token.content, output, not_run and not_run[1]))
    return blocks


def program_of(blocks: list[Block]) -> str:
    """Return blocks as one program, in which every line has the number that it has on the page."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.first_line - len(lines))
        lines += block.code.splitlines()
        # not in the processes that `multiprocessing` spawns, which read the program again
        lines += [f"if __name__ == '__main__': print({BETWEEN % block.first_line!r}, flush=True)"]
    return "\n".join(lines)


def run(page: Path, blocks: list[Block], directory: Path) -> None:
    """Run blocks in a process of their own, and compare what they print."""
    name = f"{page.stem.replace('-', '_').lower()}_{blocks[0].first_line}.py"
    (directory / name).write_text(program_of(blocks))
    command = [sys.executable, name]
    try:
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG, check=False
        )
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{page.name}: not done after {LONG} s; it has printed {error.stdout!r}, {error.stderr!r}")
    assert done.returncode == 0, f"{page.name} (the numbers of lines are those of the page):\n{done.stderr}"
    rest = done.stdout
    for block in blocks:
        printed, found, rest = rest.partition(f"{BETWEEN % block.first_line}\n")
        assert found, f"{page.name}, line {block.first_line}: the program ended within the block"
        if block.output is not None:
            same = doctest.OutputChecker().check_output(block.output.rstrip(), printed.rstrip(), doctest.ELLIPSIS)
            place = f"{page.name}, line {block.first_line}"
            assert same, f"{place}: the page says\n{block.output}\nbut printed is\n{printed}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page(page, tmp_path):
    """What a page shows runs, and prints what it says."""
    comments = "".join(token.content for token in fences_of(page) if token.type == "html_block")
    for needed in re.findall(r"<!-- needs: (.+?) -->", comments):
        for module in needed.split(", "):
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")
    blocks = blocks_of(page)
    for block in blocks:
        compile(block.code, f"{page.name}, block in line {block.first_line}", "exec")
    runnable = [block for block in blocks if block.not_run is None]
    if not runnable:
        pytest.skip("nothing here to run")
    for program in [[one] for one in runnable] if "<!-- each block is a program -->" in comments else [runnable]:
        run(page, program, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_block_hides(page):
    """Blocks of Python are marked ``python``: under another name they would not be run."""
    assert [token.info for token in fences_of(page) if DISGUISES.match(token.info)] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_into_the_repository(page):
    """What a page outside the documentation links to is there, and has a heading of that name."""
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]+)#?([^)]*)\)", page.read_text()):
        assert (ROOT / path).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path}#{anchor}"


def public_members() -> dict[str, object]:
    """Return the public names, and what the public classes have that is public: methods and properties."""
    found = {f"subiso.{name}": getattr(subiso, name) for name in subiso.__all__}
    for name, value in list(found.items()):
        for cls in inspect.getmro(value) if inspect.isclass(value) else ():
            if cls.__module__.startswith("subiso"):
                members = {part: getattr(cls, part) for part in vars(cls) if not part.startswith("_")}
                kept = {part: one for part, one in members.items() if callable(one) or type(one) is property}
                found |= {f"{name}.{part}": one for part, one in kept.items()}
    return found


def test_public_members_have_docstrings():
    """Every public name, method and property says what it is or does."""
    assert [name for name, value in public_members().items() if not inspect.getdoc(value)] == []


@pytest.mark.skipif(not INVENTORY.exists(), reason="the documentation has not been built")
def test_the_reference_has_every_public_member():
    """What is public is in the reference: every name, method and property."""
    entries = zlib.decompress(INVENTORY.read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    documented = {entry.split()[0] for entry in entries if " py:" in entry}
    assert public_members().keys() - documented == INSIDE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nprint(1)\n```\n\n```text\n1\n```\n", None),
        ("```python\nprint('some text')\n```\n```text\nsome ...\n```\n", None),
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "the page says"),
        ("```python\nmissing\n```\n", "line 2, in <module>"),
        ("<!-- not run: it has no name -->\n\n```python\nmissing\n```\n", "nothing here to run"),
        ("```python\nfound = 1\n```\n```python\nprint(found)\n```\n```text\n1\n```\n", None),
        ("<!-- each block is a program -->\n\n```python\na = 1\n```\n```python\na\n```\n", "NameError"),
        ("<!-- needs: nothing_like_it -->\n\n```python\n```\n", "not installed"),
        ("```python\nimport sys; sys.exit()\n```\n", "ended within the block"),
    ],
)
def test_the_checker(text, complaint, tmp_path):
    """A page that is wrong is found out, and what a page may say about its blocks is heeded."""
    page = tmp_path / "page.md"
    page.write_text(text)
    if complaint is None:
        test_the_blocks_of_a_page(page, tmp_path)
        return
    with pytest.raises((AssertionError, pytest.skip.Exception), match=complaint):
        test_the_blocks_of_a_page(page, tmp_path)
