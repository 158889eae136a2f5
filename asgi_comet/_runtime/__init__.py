"""Time, threads and tasks."""
