"""Publishing from a process that does not serve: scripts, and the workers of task queues."""
