"""The operations that pyperf times for `bench.parts`: each function returns one, or None where this Python has none."""

import importlib
import os
import pickle
import queue
from collections.abc import Callable

import msgspec

from bench._messages import Tick
from bench._plain import PlainTick

type Operation = Callable[[], object]


def structs() -> Operation:
    encode, decode, value = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Tick).decode, Tick(1, "tick")
    return lambda: decode(encode(value))


def dataclasses() -> Operation:
    value = PlainTick(1, "tick")
    return lambda: pickle.loads(pickle.dumps(value, 5))


def dicts() -> Operation:
    value = {"number": 1, "name": "tick", "tags": ["a", "b"]}
    return lambda: pickle.loads(pickle.dumps(value, 5))


def interpreters_queue() -> Operation | None:
    try:
        queues = importlib.import_module("_interpqueues")
        number = queues.create(0, 3, 1)  # as concurrent.interpreters does from 3.14 on
    except (ImportError, TypeError):
        return None
    value = bytes(100)

    def put_and_get() -> object:
        queues.put(number, value, 3)
        return queues.get(number)

    return put_and_get


def simple_queue() -> Operation:
    one: queue.SimpleQueue[object] = queue.SimpleQueue()

    def put_and_get() -> object:
        one.put(1)
        return one.get()

    return put_and_get


def pipe() -> Operation:
    reader, writer = os.pipe()
    value = bytes(100)

    def write_and_read() -> object:
        os.write(writer, value)
        return os.read(reader, 100)

    return write_and_read


def eventfd() -> Operation:
    one = os.eventfd(0)

    def write_and_read() -> object:
        os.eventfd_write(one, 1)
        return os.eventfd_read(one)

    return write_and_read


def call() -> Operation:
    return lambda: None
