"""Names the classes and the definitions in a schema."""

from __future__ import annotations

import itertools
import re
import typing
from collections import Counter
from collections.abc import Iterable
from typing import Any

_NOT_IN_KEYS = re.compile(r"[^a-zA-Z0-9._-]")


def name_of_class(class_: Any) -> str:
    """Return the name of a class; for a generic form such as ``Box[int]``, with its arguments."""
    origin = typing.get_origin(class_)
    if origin is None:
        return str(class_.__name__)
    arguments = (str(getattr(one, "__name__", one)) for one in typing.get_args(class_))
    return f"{origin.__name__}[{', '.join(arguments)}]"


def definition_names(classes: Iterable[Any]) -> dict[Any, str]:
    """Return a unique name for the definition of each class: its own name if that is unique."""
    short = {class_: _as_key(name_of_class(class_)) for class_ in classes}
    uses = Counter(short.values())
    names: dict[Any, str] = {}
    used_names = {name for name, count in uses.items() if count == 1}
    for class_, name in short.items():
        names[class_] = name if uses[name] == 1 else _unused_name(class_, used_names)
        used_names.add(names[class_])
    return names


def _unused_name(class_: Any, used_names: set[str]) -> str:
    full = _as_key(f"{class_.__module__}.{class_.__qualname__}")
    numbered = (f"{full}_{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([full], numbered) if name not in used_names)


def _as_key(name: str) -> str:
    return _NOT_IN_KEYS.sub("_", name)
