"""A real workload: images made small."""

import tempfile
from functools import cache
from pathlib import Path

from bench import _workloads
from bench._figures import Results
from bench._harness import Effort, Question, need

COUNT = 48

question = Question(
    "images",
    "Images made small with Pillow",
    f"{COUNT} JPEG files of 2000 by 1500 are opened, turned, made 400 wide and saved. Pillow lets go of the GIL in "
    f"most of this, so threads gain, too; the standard library's interpreters cannot load it. {_workloads.METHOD}",
    _workloads.METRICS,
    rounds=3,
    panels=_workloads.PANELS,
)


@cache
def images(count: int) -> list[str]:
    """Write images, the same each time, and return their paths."""
    need("PIL")
    from PIL import Image

    folder = Path(tempfile.gettempdir()) / "subiso-bench-images"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            picture = Image.effect_mandelbrot((2000, 1500), (-2.5 + number / 100, -1.5, 1, 1.5), 60).convert("RGB")
            picture.save(path.with_suffix(".partial"), "JPEG")
            path.with_suffix(".partial").rename(path)
    return [str(path) for path in paths]


def shrink(path: str) -> int:
    """Make an image small, and return the size of the file that it makes."""
    import io

    from PIL import Image

    with Image.open(path) as picture:
        small = picture.transpose(Image.Transpose.ROTATE_90).resize((400, 533), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return len(file.getvalue())


def paths(effort: Effort) -> list[str]:
    """Return the images' paths."""
    return images(effort(COUNT, 4))


def check(results: list[int]) -> object:
    """See that there are images."""
    return min(results) > 1000


_WHY = "Pillow cannot be loaded in the standard library's interpreters"
_workloads.add_opponents(question, shrink, paths, check, {"InterpreterPoolExecutor": _WHY, "aiointerpreters": _WHY})


@question.answers
def answer(results: Results) -> str:
    return _workloads.answer(results, f"Making {COUNT} images small")
