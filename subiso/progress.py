"""What a pool does, live in the terminal."""

from operator import length_hint

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console, RenderableType

    from subiso.pool import IsolatePool

_SHOWN = 12  # workers that get a line of their own


def track[T](
    pool: "IsolatePool", results: "Iterable[T]", description: str, total: int | None, console: "Console | None" = None
) -> "Iterator[T]":
    """Yield ``results``, while a bar and a line for each worker show what goes on."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    task = bar.add_task(description, total=total if total is not None else length_hint(results) or None)
    with Live(get_renderable=lambda: _render(pool, bar), console=console, refresh_per_second=8):
        for result in results:
            bar.advance(task)
            yield result


def _render(pool: "IsolatePool", bar: Progress) -> "RenderableType":
    workers = pool._crew.at_work()
    lines = [Text(f"  {name}  {task or 'idle'}", style="" if task else "dim") for name, task, _ in workers]
    if len(lines) > _SHOWN:
        lines[_SHOWN:] = [Text(f"  and {len(workers) - _SHOWN} more", style="dim")]
    return Group(bar, *lines)
