"""Does CPython's cross-interpreter queue give back the memory of the messages that were received?

Any CPython from 3.12 on runs it; nothing else is needed: ``queue_leak.py [MESSAGES [ROUNDS]]``. An interpreter puts
MESSAGES of 2,000 bytes (20,000 if not told) and the main interpreter receives them all, ROUNDS times (6): first with a
sender that executes bytecode while they are received, then with one that sleeps in a system call until they have
been. What is printed is the process's memory after each round, when nothing is queued any more.
"""

import os
import sys
import threading

if sys.version_info >= (3, 13):
    import _interpqueues
    import _interpreters
else:  # the same mechanism under older names
    import _xxinterpchannels
    import _xxsubinterpreters as _interpreters

MESSAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
SIZE = 2_000  # bytes

SENDER = f"""
import os
{{import_queue}}
for _ in range({ROUNDS}):
    for _ in range({MESSAGES}):
        message = bytes({SIZE})
        {{put}}
    del message
    os.write({{sent}}, b"x")
{{wait}}
"""
KEEP_LOOKING = """
    while True:
        try:
            os.read({received}, 1)
            break
        except BlockingIOError:
            pass
"""
SLEEP = """
    os.set_blocking({received}, True)
    os.read({received}, 1)
"""


def open_queue():
    """Return the sender's import, its statement that puts `message`, and a function that receives."""
    if sys.version_info >= (3, 14):
        queue = _interpqueues.create(0, 3, 0)
        return "import _interpqueues", f"_interpqueues.put({queue}, message, 3)", lambda: _interpqueues.get(queue)
    if sys.version_info >= (3, 13):
        queue = _interpqueues.create(0, 0, 3)
        return "import _interpqueues", f"_interpqueues.put({queue}, message, 0, 3)", lambda: _interpqueues.get(queue)
    channel = _xxinterpchannels.create()
    return (
        "import _xxinterpchannels",
        f"_xxinterpchannels.send({channel}, message)",
        lambda: _xxinterpchannels.recv(channel),
    )


def resident():
    """Return the process's resident memory in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_by_round(wait):
    """Return the memory after each round with a sender that waits in the given way."""
    import_queue, put, receive = open_queue()
    sent_reader, sent = os.pipe()
    received, received_writer = os.pipe()
    os.set_blocking(received, False)
    source = SENDER.format(import_queue=import_queue, put=put, sent=sent, wait=wait.format(received=received))

    def send():
        interpreter = _interpreters.create()
        _interpreters.run_string(interpreter, source)
        _interpreters.destroy(interpreter)

    thread = threading.Thread(target=send)
    thread.start()
    figures = []
    for _ in range(ROUNDS):
        os.read(sent_reader, 1)
        for _ in range(MESSAGES):
            receive()
        figures.append(resident())
        os.write(received_writer, b"x")
    thread.join()
    return figures


if __name__ == "__main__":
    print(f"CPython {sys.version.split()[0]}: memory in MB after each round of {MESSAGES * SIZE / 1e6:.0f} MB")
    for name, wait in (("sender executes bytecode", KEEP_LOOKING), ("sender sleeps", SLEEP)):
        print(f"{name:>26}:", *(f"{figure:6.1f}" for figure in memory_by_round(wait)))
