"""The worker: it runs the listeners and tasks of a bus."""
