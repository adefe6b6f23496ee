"""What tests control and read: tasks, faults, request log. No FastAPI; the control API is in ``http.control_api``."""
