"""Models for the test of pydantic's objects as messages: isolates must be able to import them."""

import datetime
import decimal
import uuid

import pydantic


class Line(pydantic.BaseModel):
    """A part of an order."""

    name: str
    price: decimal.Decimal


class Order(pydantic.BaseModel, validate_assignment=True):
    """A model with nested models, a private attribute and validation of what is assigned."""

    number: uuid.UUID
    lines: list[Line]
    when: datetime.datetime
    note: dict[str, list[int]] = {}
    _seen: int = pydantic.PrivateAttr(default=0)
