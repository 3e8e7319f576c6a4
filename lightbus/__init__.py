"""Lightbus: an event bus for Python services."""

from lightbus.api import Api
from lightbus.bus import Bus, create, get_bus
from lightbus.events import Event, event
from lightbus.listener import OnError
from lightbus.message import EventMessage
from lightbus.parameters import Parameter, WildcardParameter
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
    "event",
    "get_bus",
]
