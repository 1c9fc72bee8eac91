"""Log records of isolates: made there, handled by main's ``logging``. Imported where logging is, and not before."""

import functools
import logging

from subiso import reports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BODY = "subiso-body"  # the name of the thread that runs the isolate's code, which says nothing


def levels() -> "reports.Levels":
    """Return which levels this isolate's loggers have."""
    root, manager = logging.root, logging.root.manager
    loggers = manager.loggerDict.copy()
    return (
        root.level,
        manager.disable,
        {name: one.level for name, one in loggers.items() if isinstance(one, logging.Logger) and one.level},
    )


class _Forwarder(logging.Handler):
    def __init__(self, isolate: str) -> None:
        super().__init__()
        self._isolate = isolate

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as plain data: its text is made here, where its arguments are."""
        from subiso.errors import SendError

        try:
            facts = dict(record.__dict__)
            facts.update(msg=record.getMessage(), args=None, exc_info=None, isolate=self._isolate)
            if record.exc_info and not record.exc_text:
                facts["exc_text"] = logging.Formatter().formatException(record.exc_info)
            if record.threadName == _BODY:
                facts["threadName"] = self._isolate
            try:
                reports.send(reports.RECORD, facts)
            except SendError:  # extra attributes that cannot be sent
                plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float | None)}
                reports.send(reports.RECORD, plain)
        except Exception:
            self.handleError(record)


def forward(isolate: str, levels: "reports.Levels") -> None:
    """Send every record that reaches this isolate's root logger to main; have its loggers let through what main's do.

    An isolate that calls ``logging.basicConfig`` handles its records itself from then on.
    """
    root = logging.getLogger()
    forwarder = _Forwarder(isolate)
    root.addHandler(forwarder)
    level, disabled, others = levels
    root.setLevel(level)
    logging.disable(disabled)
    for name, one in others.items():
        logging.getLogger(name).setLevel(one)
    configure = logging.basicConfig

    @functools.wraps(configure)
    def basic_config(**options: "Any") -> None:
        root.removeHandler(forwarder)
        configure(**options)

    logging.basicConfig = basic_config


def handle(facts: "dict[str, Any]") -> None:
    """Treat a record that was sent as one of main's own."""
    record = logging.makeLogRecord(facts)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
