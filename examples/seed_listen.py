"""The second program: main listens, prints what comes, and ends by itself once the isolate has ended."""

from subiso import Isolate, ReceivePort, SendPort


def background_task(send_port: SendPort) -> None:
    # Perform time-consuming task here
    result = sum(n * n for n in range(1_000_000))
    # Send the result back to the main isolate
    send_port.send(result)


def main() -> None:
    port = ReceivePort()
    # Handle the result received from the isolate
    port.listen(print)

    Isolate.spawn(background_task, port.send_port)


main()
