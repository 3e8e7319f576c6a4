"""Lightbus: an event bus for Python services."""

from lightbus.api import Api, Event, Parameter, WildcardParameter
from lightbus.bus import Bus, create, get_bus
from lightbus.listener import OnError
from lightbus.message import EventMessage
from lightbus.worker import Worker

__all__ = [
    "Api",
    "Bus",
    "Event",
    "EventMessage",
    "OnError",
    "Parameter",
    "WildcardParameter",
    "Worker",
    "create",
    "get_bus",
]
