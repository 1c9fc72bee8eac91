"""The least that a worker can do. Imports nothing, so that starting a worker is all that is measured.

It has no annotations for the same reason, and so no types.
"""
# mypy: allow-untyped-defs, disable-error-code="var-annotated"


def say_hello(port):
    """Send something through whatever this is."""
    port.send(True)


def negate(number):
    """Return the number with the other sign."""
    return -number


def echo(message):
    """Return the message."""
    return message


def wait_in_isolate(hello, package=""):
    """Load a package, send a port, and wait for a message to it."""
    from subiso import ReceivePort

    if package:
        __import__(package)
    with ReceivePort(end_with_senders=False) as port:
        hello.send(port.send_port)
        port.receive()


def wait_in_process(pipe, package=""):
    """Load a package, send the process's number, and wait for a message."""
    import os

    if package:
        __import__(package)
    pipe.send(os.getpid())
    pipe.recv()
