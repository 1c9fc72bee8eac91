"""Make thumbnails of a folder of pictures on every core, and a web page that shows them.

    python examples/thumbnails.py [FOLDER] [--out thumbnails] [--workers N] [--compare]

Needs pillow. Without a folder, two dozen pictures of twelve megapixels are made up, a broken one among them. Each
worker turns a picture the right way up, makes it small, and finds its main colours by clustering, in plain Python; the
page shows the colours until the thumbnail is there. What comes back from a worker is the thumbnail's place and the
colours; the pixels stay there. A picture that cannot be read is reported, and the others go on.

`--compare` does the same in one thread, in a thread pool and in a process pool. Pillow lets go of the GIL, so threads
gain where it works, and lose where Python does.
"""

import argparse
import html
import math
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from subiso import IsolatePool

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}

type Colour = tuple[int, ...]


@dataclass
class Thumbnail:
    """What became of a picture."""

    source: Path
    place: Path | None = None
    size: tuple[int, int] = (0, 0)
    colours: list[str] = field(default_factory=list)  # the most frequent one first
    error: str = ""


def main_colours(pixels: list[Colour], count: int = 4, rounds: int = 8) -> list[str]:
    """Return the middles of ``count`` clusters of the pixels (k-means), the largest cluster first."""
    spread = sorted(pixels, key=sum)
    middles = [spread[(2 * number + 1) * len(spread) // (2 * count)] for number in range(count)]
    clusters: list[list[Colour]] = []
    for _ in range(rounds):
        clusters = [[] for _ in middles]
        for pixel in pixels:
            distances = [math.dist(pixel, middle) for middle in middles]
            clusters[distances.index(min(distances))].append(pixel)
        middles = [
            tuple(sum(channel) // len(cluster) for channel in zip(*cluster, strict=True)) if cluster else middle
            for cluster, middle in zip(clusters, middles, strict=True)
        ]
    ranked = sorted(zip(clusters, middles, strict=True), key=lambda pair: len(pair[0]), reverse=True)
    return ["#" + bytes(middle).hex() for _, middle in ranked]


def make_thumbnail(out: Path, size: int, source: Path) -> Thumbnail:
    """Make one thumbnail."""
    try:
        with Image.open(source) as picture:
            whole = picture.size
            picture.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at about that size
            small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail((size, size), Image.Resampling.LANCZOS)
        place = out / f"{source.name}.webp"
        small.save(place, quality=80)
        raw = small.resize((64, 64)).tobytes()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        return Thumbnail(source, error=str(error))
    pixels = [tuple(raw[place : place + 3]) for place in range(0, len(raw), 3)]
    return Thumbnail(source, place, whole, main_colours(pixels))


def write_page(out: Path, thumbnails: Iterable[Thumbnail]) -> Path:
    """Write the page that shows them."""
    figures = [
        f'<figure style="background: linear-gradient({", ".join(one.colours)})">'
        f'<img src="{html.escape(one.place.name)}" alt="" loading="lazy">'
        f"<figcaption>{html.escape(one.source.name)}, {one.size[0]} x {one.size[1]}</figcaption></figure>"
        for one in thumbnails
        if one.place
    ]
    style = (
        "body{display:flex;flex-wrap:wrap;gap:12px;font:13px sans-serif}"
        "figure{margin:0;padding:8px;width:240px;text-align:center}img{max-width:100%;max-height:200px}"
        "figcaption{background:#fffc;margin-top:6px}"
    )
    page = out / "index.html"
    head = f'<!doctype html><meta charset="utf-8"><title>Thumbnails</title><style>{style}</style>'
    page.write_text("\n".join([head, *figures]))
    return page


def make_up(folder: Path, count: int) -> None:
    """Paint pictures: hills under a sky. The last file is cut short."""
    chance = random.Random(3)
    for number in range(count):
        width, height = chance.choice([(4000, 3000), (3000, 4000), (4500, 2700)])
        sky, ground = (tuple(chance.randrange(low, 256) for _ in range(3)) for low in (120, 0))
        picture = Image.linear_gradient("L").resize((width, height))
        picture = ImageOps.colorize(picture, sky, "white")
        draw = ImageDraw.Draw(picture)
        x, y, radius = chance.randrange(width), height // 4, height // chance.randrange(9, 16)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill="#fff3c4")
        for layer in range(5):
            base, waves, at = height * (4 + layer) // 9, chance.uniform(1, 4), chance.uniform(0, 6)
            ridge = [(x, base + height / 18 * math.sin(at + waves * 6 * x / width)) for x in range(0, width + 50, 50)]
            draw.polygon([*ridge, (width, height), (0, height)], tuple(part * (8 - layer) // 8 for part in ground))
        picture.save(folder / f"hills-{number:02}.jpg", quality=90)
    whole = (folder / "hills-00.jpg").read_bytes()
    (folder / "hills-broken.jpg").write_bytes(whole[: len(whole) // 2])


def compare(task: partial[Thumbnail], pictures: list[Path], workers: int) -> None:
    """Do it in other ways, and tell how long each took."""

    def time_it(name: str, thumbnails: Iterable[Thumbnail], begin: float) -> None:
        done = sum(not one.error for one in thumbnails)
        print(f"{name:<12}{time.perf_counter() - begin:6.2f} s for {done} thumbnails")

    time_it("one thread", map(task, pictures), time.perf_counter())
    for name, executor in (
        ("threads", lambda: ThreadPoolExecutor(workers)),
        ("processes", lambda: ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))),
        ("isolates", lambda: IsolatePool(workers)),
    ):
        begin = time.perf_counter()  # making the workers is part of it
        with executor() as pool:
            time_it(name, pool.map(task, pictures), begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, help="with pictures")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("thumbnails"), help="for the page (thumbnails)")
    parser.add_argument("--size", metavar="PIXELS", type=int, default=320, help="of the longer side (320)")
    parser.add_argument("--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="one for each core")
    parser.add_argument("--samples", metavar="N", type=int, default=24, help="pictures that are made up (24)")
    parser.add_argument("--compare", action="store_true", help="do it in other ways, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = options.folder
        if folder is None:
            folder = Path(directory)
            make_up(folder, options.samples)
        pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        options.out.mkdir(parents=True, exist_ok=True)
        task = partial(make_thumbnail, options.out, options.size)
        begin = time.perf_counter()
        with IsolatePool(options.workers, name="thumbnails") as pool:
            made = list(pool.progress(pool.map(task, pictures), "Making thumbnails", total=len(pictures)))
        seconds = time.perf_counter() - begin
        page = write_page(options.out, made)
        print()
        for one in made:
            if one.error:
                print(f"{one.source.name}: {one.error}")
        print(f"{sum(not one.error for one in made)} thumbnails in {seconds:.2f} s: {page}")
        if options.compare:
            compare(task, pictures, options.workers)


if __name__ == "__main__":
    main()
