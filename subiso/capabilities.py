"""Unforgeable tokens."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Capability:
    """A token that nobody can make a second time, to be recognized by.

    It can be sent, and it is equal to, and has the hash of, each of its copies in whatever isolate, and to nothing
    else. (Dart: ``Capability``.)
    """

    __slots__ = ("_token",)
    _token: bytes

    def __init__(self) -> None:
        self._token = os.urandom(16)

    @classmethod
    def _of(cls, token: bytes) -> "Capability":
        capability = object.__new__(cls)
        capability._token = token
        return capability

    def __eq__(self, other: object) -> bool:
        return self._token == other._token if isinstance(other, Capability) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._token)

    def __repr__(self) -> str:
        return f"<Capability {hash(self._token) & 0xFFFFFF:06x}>"

    def __copy__(self) -> "Capability":
        return self

    def __deepcopy__(self, memo: object) -> "Capability":
        return self

    def __reduce__(self) -> "tuple[Any, ...]":
        return Capability._of, (self._token,)
