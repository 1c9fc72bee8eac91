"""Forking, and other processes, beside isolates."""

import pytest

USED = """
    import os, sys, multiprocessing, subprocess
    from subiso import Isolate, ReceivePort

    def double(number):
        return 2 * number

    def wait(hello):
        with ReceivePort(end_with_senders=False) as port:
            hello.send(port.send_port)
            port.receive()
"""


def test_a_fork_after_isolates_have_ended(start):
    """The child and the parent go on, and each can start isolates of its own."""
    program = start(
        USED
        + """
    assert Isolate.run(double, 1).result() == 2
    child = os.fork()
    if not child:
        assert Isolate.run(double, 2).result() == 4
        sys.exit(6)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    assert Isolate.run(double, 3).result() == 6
    print("done")
    """
    ).finish()
    assert (program.returncode, program.out) == (0, "done\n"), program.err


def test_a_fork_while_an_isolate_ends(start):
    """A fork waits for the end of an isolate that ends a moment later: its result may have come already."""
    program = start(
        USED
        + """
    from subiso._kernel import nursery

    with ReceivePort() as hello:
        isolate = Isolate.spawn(wait, hello.send_port)
        port = hello.receive()
        made = nursery._nursery
        await_ends = made.await_ends

        def end_it_and_await_ends(timeout):
            port.send(None)
            return await_ends(20)

        made.await_ends = end_it_and_await_ends
        child = os.fork()
        if not child:
            os._exit(0)
        print(os.waitpid(child, 0)[1], isolate.is_alive)
    """
    ).finish()
    assert (program.returncode, program.out) == (0, "0 False\n"), program.err


def test_a_fork_beside_a_living_isolate_is_refused(start):
    """`os.fork` raises a sentence that names the isolate and says what to do; afterwards it works again."""
    program = start(
        USED
        + """
    with ReceivePort() as hello:
        isolate = Isolate.spawn(wait, hello.send_port, name="sitter")
        port = hello.receive()
        try:
            os.fork()
        except RuntimeError as error:
            print(error)
        port.send(None)
        isolate.join()
    child = os.fork()
    if not child:
        os._exit(0)
    print(os.waitpid(child, 0)[1])
    """
    ).finish()
    assert program.returncode == 0, program.err
    refused, status = program.out.splitlines()
    assert refused.startswith("os.fork while isolates live (sitter)")
    assert "spawn" in refused
    assert status == "0"


def test_ports_of_the_parent_are_closed_in_the_child(start):
    """In a forked child a port of the parent's raises; the parent's goes on."""
    program = start(
        USED
        + """
    from subiso import PortClosedError
    port = ReceivePort()
    port.send_port.send("kept")
    child = os.fork()
    if not child:
        for use in (port.receive, lambda: port.send_port.send(1)):
            try:
                use()
            except PortClosedError:
                continue
            os._exit(1)
        port.close()
        os._exit(0)
    print(os.waitpid(child, 0)[1], port.receive())
    """
    ).finish()
    assert (program.returncode, program.out) == (0, "0 kept\n"), program.err


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_after_isolates(start, method):
    """Each start method works after isolates have been used and have ended."""
    program = start(
        USED
        + """
    if __name__ == "__main__":
        assert Isolate.run(double, 1).result() == 2
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            assert pool.map(abs, [-1, 2, -3]) == [1, 2, 3]
        assert Isolate.run(double, 4).result() == 8
        print("done")
    """,
        method,
    ).finish(60)
    assert (program.returncode, program.out) == (0, "done\n"), program.err


def test_subprocess_beside_living_isolates(start):
    """Starting another program disturbs no isolate."""
    program = start(
        USED
        + """
    with ReceivePort() as hello:
        isolate = Isolate.spawn(wait, hello.send_port)
        port = hello.receive()
        assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\\n"
        port.send(None)
        print(isolate.join(20))
    """
    ).finish(60)
    assert (program.returncode, program.out) == (0, "True\n"), program.err
