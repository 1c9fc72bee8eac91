"""What does waiting cost? The processor time that isolates use while they wait on a port."""

import argparse
import sys
import time

from subiso import Isolate, ReceivePort, SendPort


def wait(hello: SendPort) -> None:
    with ReceivePort(end_with_senders=False) as port:
        hello.send(port.send_port)
        port.receive()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; the figures mean little")
    quick = parser.parse_args().quick
    count, seconds = (4, 0.5) if quick else (100, 10)
    with ReceivePort() as hello:
        isolates = [Isolate.spawn(wait, hello.send_port) for _ in range(count)]
        ports = [hello.receive(60) for _ in isolates]
        time.sleep(0.5)  # spares are still being made
        before = time.process_time()
        time.sleep(seconds)
        used = time.process_time() - before
        print(f"Python {sys.version.split()[0]}: {count} waiting isolates used {used * 1000:.2f} ms in {seconds} s")
        for port in ports:
            port.send(None)
        for isolate in isolates:
            isolate.join()


if __name__ == "__main__":
    main()
