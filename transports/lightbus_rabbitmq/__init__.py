"""Events through RabbitMQ: durable, confirmed, on quorum queues."""

from lightbus_rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQTransport"]
