"""The core's own tests. They need no broker: their events stay in memory."""
