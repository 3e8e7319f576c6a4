"""Lightbus: an event bus for Python services."""

from lightbus.api import Api
from lightbus.bus import Bus, create, get_bus
from lightbus.declarations import Parameter, WildcardParameter
from lightbus.events import Event, event
from lightbus.message import EventMessage
from lightbus.policy import OnError
from lightbus.worker.worker import Worker

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
    "event",
    "get_bus",
]
