"""Log records of worker isolates: sent from there, handled by the ``logging`` of the pool's isolate."""

import logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from subiso.sending import SendPort

_BODY = "subiso-body"  # the name of the thread that runs tasks, which says nothing


class _Forwarder(logging.Handler):
    def __init__(self, isolate: str, port: "SendPort") -> None:
        super().__init__()
        self._isolate = isolate
        self._port = port

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as plain data: its text is made here, where its arguments are."""
        from subiso.errors import IsolateError

        try:
            facts = dict(record.__dict__)
            facts.update(msg=record.getMessage(), args=None, exc_info=None, isolate=self._isolate)
            if record.exc_info and not record.exc_text:
                facts["exc_text"] = logging.Formatter().formatException(record.exc_info)
            if record.threadName == _BODY:
                facts["threadName"] = self._isolate
            self._send(facts)
        except IsolateError:  # the pool is gone
            pass
        except Exception:
            self.handleError(record)

    def _send(self, facts: "dict[str, Any]") -> None:
        from subiso.errors import SendError

        try:
            self._port.send_nowait(facts)
        except SendError:  # extra attributes that cannot be sent
            plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float | None)}
            self._port.send_nowait(plain)


def forward(isolate: str, port: "SendPort", level: int) -> None:
    """Send every record that reaches this isolate's root logger to ``port``."""
    root = logging.getLogger()
    root.addHandler(_Forwarder(isolate, port))
    root.setLevel(level)


def handle(facts: "dict[str, Any]") -> None:
    """Treat a record that was sent as one of this isolate's own."""
    record = logging.makeLogRecord(facts)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
