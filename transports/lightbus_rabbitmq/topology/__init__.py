"""The exchanges, queues and bindings at the broker: declared, compared and migrated."""
