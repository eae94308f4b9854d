"""A secret: bytes that show nowhere."""

from __future__ import annotations

import hmac


class Secret:
    """A passcode, token or ticket. Neither `repr` nor `str` nor formatting shows it, and it is not pickled.

    `reveal` gives the bytes. It equals another secret, or bytes, of the same value, compared in constant time.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | Secret) -> None:
        found = value.reveal() if isinstance(value, Secret) else value
        if not isinstance(found, bytes):
            raise TypeError(f"a secret is bytes, not {type(found).__name__}")
        self._value: bytes = found

    def reveal(self) -> bytes:
        """What it is."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Secret):
            other = other._value
        return isinstance(other, bytes) and hmac.compare_digest(self._value, other)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "<secret>"

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a secret is not pickled")
