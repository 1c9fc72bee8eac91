"""The least that a worker can do. Imports nothing, so that starting a worker is all that is measured."""


def say_hello(port):  # type: ignore[no-untyped-def]  # annotations would import typing
    """Send something through whatever this is."""
    port.send(True)


def negate(number):  # type: ignore[no-untyped-def]
    """Return the number with the other sign."""
    return -number


def echo(message):  # type: ignore[no-untyped-def]
    """Return the message."""
    return message
