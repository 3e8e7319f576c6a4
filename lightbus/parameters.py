"""`Parameter` and `WildcardParameter`: what an event carries."""

from __future__ import annotations

import enum
import keyword
from typing import Any

import attrs
import msgspec

from lightbus.exceptions import InvalidApi
from lightbus.hints import admits_none, optional


class _Required(enum.Enum):
    """Marks a parameter without a default, because None is a valid default."""

    REQUIRED = "required"


@attrs.frozen
class Parameter:
    """One named value of an event.

    Attributes:
        name: A Python identifier; the key in the event's JSON body.
        annotation: The type of the value.
        default: What is sent where `fire` is not given the value. A parameter whose annotation
            admits ``None`` has the default ``None``.

    Raises:
        InvalidApi: `name` is no identifier, or a keyword of Python, or `default` does not travel.
    """

    name: str
    annotation: Any = Any
    default: Any = _Required.REQUIRED

    def __attrs_post_init__(self) -> None:
        if (
            not isinstance(self.name, str)
            or not self.name.isidentifier()
            or keyword.iskeyword(self.name)
        ):
            raise InvalidApi(f"{self.name!r} cannot name a parameter: it is not an identifier.")
        if self.default is msgspec.UNSET:
            raise InvalidApi(
                f"The parameter {self.name!r} has the default UNSET, which does not travel. Give "
                f"it another one, such as None."
            )
        if self.default is _Required.REQUIRED and admits_none(self.annotation):
            object.__setattr__(self, "default", None)

    @property
    def is_required(self) -> bool:
        """Whether `fire` must be given this value."""
        return self.default is _Required.REQUIRED

    @property
    def type(self) -> Any:
        """The type of the value, which is also that of the default."""
        return optional(self.annotation) if self.default is None else self.annotation


@attrs.frozen
class WildcardParameter:
    """Among an event's parameters, admits any further parameters."""
