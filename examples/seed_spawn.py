"""The first program: an isolate sends its result back, and main receives it."""

from subiso import Isolate, ReceivePort, SendPort


def background_task(send_port: SendPort) -> None:
    # Perform time-consuming task here
    result = sum(n * n for n in range(1_000_000))
    # Send the result back to the main isolate
    send_port.send(result)


def main() -> None:
    port = ReceivePort()
    Isolate.spawn(background_task, port.send_port)
    print(port.receive())


main()
