"""What can be done to tasks and their runs, and what the scheduler does by itself."""
