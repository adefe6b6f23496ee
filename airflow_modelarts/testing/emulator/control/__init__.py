"""What tests control and read: tasks, faults, the request log. No FastAPI; the control API is in ``http.control``."""
