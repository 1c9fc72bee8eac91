"""Faults put in on purpose: each ends in a clear error and a working library. All of them run with `-m stress`."""

import argparse
import faulthandler
import importlib.util
from pathlib import Path

import faulting
import pytest
from faulting import Trial

from subiso._kernel import faults

FEW = {
    # A step in who spawns: the interpreter that was lent is given back.
    Trial("spawn", "spawn.pack", "main", "exception"): "FaultError",
    Trial("run", "spawn.attach", "main", "exception"): "FaultError",
    Trial("nested", "spawn.pack", "isolate", "exception"): "FaultError",
    Trial("submit", "spawn.encode", "main", "exception"): "BrokenIsolatePool",
    # The start: an IsolateSpawnError, to whom it concerns.
    Trial("fresh", "spawn.create", "main", "memory"): "told: IsolateSpawnError",
    Trial("fresh", "thread.interpreter", "main", "thread"): "IsolateSpawnError",
    Trial("fresh", "thread.body", "isolate", "thread"): "told: IsolateSpawnError",
    Trial("fresh", "memory.map", "isolate", "mapping"): "told: IsolateSpawnError",
    Trial("spawn", "start.setting", "isolate", "exception"): "told: IsolateSpawnError",
    Trial("run", "start.setting", "isolate", "exception"): "IsolateSpawnError",
    # Private copies.
    Trial("extension", "import.write", "isolate", "disk"): "told: ImportError",
    Trial("extension", "import.file", "isolate", "descriptors"): "told: ImportError",
    # What cannot be sent for lack of memory.
    Trial("run_large", "send.large", "isolate", "memory"): "MemoryError",
    Trial("run_large", "send.large", "main", "memory"): "MemoryError",
    Trial("run_large", "send.ring", "main", "exception"): "done",
    # What must not be left out, or somebody would wait for ever.
    Trial("nested", "spawn.broker", "main", "exception"): "done",
    Trial("pause", "control.handle", "isolate", "exception"): "done",
    Trial("kill", "control.interrupt", "isolate", "exception"): "done",
    Trial("spawn", "exit.listeners", "isolate", "exception"): "done",
    Trial("listen", "exit.ports", "isolate", "exception"): "done",
    Trial("spawn", "exit.end", "isolate", "exception"): "done",
    Trial("spawn", "exit.announce", "isolate", "exception"): "done",
    Trial("run", "recycle.begin", "isolate", "exception"): "done",
    Trial("run", "recycle.renew", "isolate", "exception"): "done",
    Trial("run", "thread.body", "isolate", "thread"): "done",
}
"""Trials, and what is to come out."""


@pytest.fixture(scope="module")
def outcomes():
    """What came of those trials, made in a process of their own."""
    return dict(faulting.make(list(FEW)))


@pytest.mark.parametrize("trial", FEW, ids="-".join)
def test_a_fault(trial, outcomes):
    """It comes out as what it is, and afterwards everything works and nothing is left."""
    found = outcomes[trial]
    assert faulting.verdict(trial, found) == "", found["stderr"]
    assert (found["fired"], found["outcome"]) == (1, FEW[trial]), found["text"]


@pytest.mark.parametrize("point", faults.POINTS)
def test_steps(point):
    """Every step is a function that is there, or is of a module that is not on this system."""
    module, _, path = faults.POINTS[point].partition(" ")[0].partition(":")
    owner = pytest.importorskip(module)
    for name in path.split("."):
        owner = getattr(owner, name)
    assert callable(owner)


def test_interpreters_that_end_leave_no_descriptor(script):
    """New interpreters, with a private copy in them, take no descriptor with them when they end."""
    program = script(
        """
        import os
        from subiso import Isolate, ReceivePort
        from subiso._kernel import nursery

        def live(out):
            import msgspec
            with ReceivePort(end_with_senders=False) as port:
                out.send(port.send_port)
                port.receive()

        def look():
            slots = len(nursery._nursery._berths)  # each keeps a pipe and a doorbell for the next interpreter
            return len(os.listdir("/proc/self/fd")) - 3 * slots

        counts = []
        for _ in range(6):
            with ReceivePort() as out:
                isolate = Isolate.spawn(live, out.send_port, fresh=True)
                out.receive(20).send(None)
                assert isolate.join(20)
                assert nursery._nursery.retire_idle(20)
            counts.append(look())
        print(len(set(counts)) == 1, counts)
        """
    )
    assert program.out.startswith("True"), program.out + program.err


def test_the_page_is_up_to_date():
    """The page on disk is the one that the reports make; else run docs/faults.py."""
    spec = importlib.util.spec_from_file_location("faults_page", Path(__file__).parent.parent / "docs" / "faults.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert page.PAGE.read_text() == page.page()


@pytest.mark.stress
def test_every_fault_at_every_step():
    """Whatever fails, at whatever step of whatever operation: a clear error, nothing left, and all goes on."""
    faulthandler.cancel_dump_traceback_later()  # pytest's limit for a test is too short for this one
    options = argparse.Namespace(points=[], operations=[], kinds=[])
    every = list(faulting.trials(faulting.reached(), options))
    wrong = {trial: problem for trial, found in faulting.make(every) if (problem := faulting.verdict(trial, found))}
    assert wrong == {}


def test_nothing_is_loaded_while_off(script):
    """Without a fault, no interpreter loads the module."""
    program = script(
        """
        import sys
        from subiso import Isolate

        def look():
            import sys
            return "subiso._kernel.faults" in sys.modules

        print(Isolate.run(look).result(20), look())
        """
    )
    assert program.out == "False False\n"


def test_no_descriptors_left(script):
    """Where the system gives no more descriptors, starting says so, and goes on as before when there are some again."""
    program = script(
        """
        import os, resource
        from subiso import Isolate, IsolateSpawnError, ReceivePort

        def say(out):
            out.send(["ran", None])

        def start():
            with ReceivePort() as ends:
                try:
                    isolate = Isolate.spawn(say, ends.send_port, fresh=True, on_error=ends.send_port)
                except (IsolateSpawnError, OSError) as error:
                    return f"{type(error).__name__}: {error}"
                assert isolate.join(20)
                return "".join(text for text, _ in ends)

        print(start(), Isolate.run(sum, [1, 2]).result(20))
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        said = [start() for _ in range(10)]  # one may run, with what another one has given back
        errors = [text for text in said if text.startswith(("IsolateSpawnError", "OSError"))]
        print(bool(errors), set(said) - set(errors) <= {"ran"} or said)
        for descriptor in taken:
            os.close(descriptor)
        print(start(), Isolate.run(sum, [1, 2]).result(20))
        """
    )
    assert (program.out, program.returncode) == ("ran 3\nTrue True\nran 3\n", 0), program.err


def test_no_room_for_copies(script, tmp_path):
    """Where private copies cannot be written, the import says what to do; with room again it works, in that isolate."""
    directory = tmp_path / "copies"
    directory.mkdir()
    program = script(
        """
        import os, sys
        from subiso import Isolate

        def import_twice(directory):
            import os
            os.environ["SUBISO_COPIES_DIR"] = directory + "/missing"
            try:
                import msgspec
            except ImportError as error:
                text = str(error)
            os.environ["SUBISO_COPIES_DIR"] = directory
            import msgspec
            return "SUBISO_COPIES_DIR" in text, msgspec.json.encode(1)

        print(Isolate.run(import_twice, sys.argv[1]).result(20))
        """,
        directory,
    )
    assert program.out == "(True, b'1')\n", program.err
    assert list(directory.iterdir()) == []
