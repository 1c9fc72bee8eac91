"""Files that exist only while they are being loaded: copies of shared objects, under paths never used before.

They lie in ``<SUBISO_COPIES_DIR, TMPDIR or /tmp>/subiso-<user>/<process>/``. Both directories are private to the user,
made when needed and removed when empty. What a killed process left, the next one that copies removes.
"""

import errno
import os
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SWITCH = "SUBISO_COPIES_DIR"
"""The environment variable that names another place for the copies."""

_ATTEMPTS = 100
_ABANDONED = 60.0  # seconds a directory must be unchanged before it may count as a dead process's

_own_name: tuple[int, str] | None = None  # the process, which a fork changes, and its directory's name


def make(source: int, name: str, change: "Callable[[int], None] | None" = None) -> str:
    """Copy the open file and return the path of the copy, which no file had before.

    Args:
        source: the file's descriptor; its position does not matter.
        name: what it is, for people who look at the process's memory map.
        change: is called with the copy's descriptor when it is complete, to change something in it.

    Raises:
        OSError: there is no room, no permission or no such directory. ``advice`` says what to do.
    """
    path, target = _create(name)
    try:
        _transfer(source, target)
        if change is not None:
            change(target)
    except OSError as error:
        discard(path)
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(target)
    return path


def discard(path: str) -> None:
    """Remove a copy and the directories that this leaves empty; a copy that is loaded stays usable."""
    os.unlink(path)
    try:
        os.rmdir(directory := os.path.dirname(path))
        os.rmdir(os.path.dirname(directory))
    except OSError:
        pass  # other copies are being loaded, or another isolate removed it


def advice() -> str:
    """Tell the user what to do where copies cannot be made or loaded."""
    return f"set {SWITCH} to a directory with room, that can be written and whose files can be executed"


def place() -> str:
    """Return the directory below which copies are made."""
    return os.environ.get(SWITCH) or os.environ.get("TMPDIR") or "/tmp"


def probe() -> bool:
    """Make a copy of a small file and return whether it could be executed; then remove it.

    Raises:
        OSError: it cannot be made.
    """
    source = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
    try:
        path = make(source, "probe")
    finally:
        os.close(source)
    try:
        return not os.statvfs(path).f_flag & os.ST_NOEXEC
    finally:
        discard(path)


def directories() -> tuple[int, int]:
    """Return how many living processes have a directory for copies at this moment, and how many that have ended."""
    counts = [0, 0]
    try:
        names = os.listdir(f"{place()}/subiso-{os.geteuid()}")
    except FileNotFoundError:
        names = []
    for name in names:
        pid, _, started = name.partition("-")
        if pid.isdecimal():
            counts[_start_time(int(pid)) != started] += 1
    return counts[0], counts[1]


def _create(name: str) -> tuple[str, int]:
    """Create a file in this process's directory; return its path and its descriptor.

    Race: an isolate that removes its copy may remove the directory before the file is in it, so it is made again.
    """
    for _ in range(_ATTEMPTS):
        try:
            directory = _make_directory(place())
            path = f"{directory}/{name}.{os.urandom(8).hex()}.so"
            return path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            os.stat(place())
    raise FileNotFoundError(errno.ENOENT, "no directory can be made there, or it is removed at once", place())


def _make_directory(parent: str) -> str:
    of_user = f"{parent}/subiso-{os.geteuid()}"
    _make_private(of_user)
    own = _process_name()
    if _make_private(directory := f"{of_user}/{own}"):
        _sweep(of_user, own)
    return directory


def _make_private(directory: str) -> bool:
    """Make the directory unless it exists; return whether it was made.

    Where everybody may write, somebody else may have made it first, to exchange the copies before they are loaded.
    """
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(f"{directory} is not a directory of this user alone") from None
        return False
    return True


def _process_name() -> str:
    """Return this process's number and the time it was started, which together no other process has."""
    global _own_name
    pid = os.getpid()
    if _own_name is None or _own_name[0] != pid:
        _own_name = pid, f"{pid}-{_start_time(pid)}"
    return _own_name[1]


def _start_time(pid: int) -> str:
    """Return when the process was started, in the kernel's ticks; nothing if it is not there."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):  # it ends just now
        return ""
    finally:
        os.close(fd)


def _sweep(of_user: str, own: str) -> None:
    """Remove the directories of processes that have ended.

    A process of another container is not seen to run; but a copy lives for milliseconds, and only old ones are removed.
    """
    for name in os.listdir(of_user):
        pid, _, started = name.partition("-")
        directory = f"{of_user}/{name}"
        try:
            if name == own or not pid.isdecimal() or _start_time(int(pid)) == started:
                continue
            if time.time() - os.stat(directory).st_mtime < _ABANDONED:
                continue
            for left in os.listdir(directory):
                os.unlink(f"{directory}/{left}")
            os.rmdir(directory)
        except OSError:
            pass  # another process sweeps as well


def _transfer(source: int, target: int) -> None:
    """Copy the file inside the operating system, and where the file system can, without copying its blocks."""
    size, done = os.fstat(source).st_size, 0
    while done < size:
        try:
            count = os.copy_file_range(source, target, size - done, done, done)
        except OSError:  # across file systems, or not supported by this one
            os.lseek(target, done, os.SEEK_SET)
            count = os.sendfile(target, source, done, size - done)
        if not count:
            raise OSError(errno.ESTALE, "the original shrank while it was copied")
        done += count
