"""The AMQP driver: connections, channels, frames, and what its errors mean."""
