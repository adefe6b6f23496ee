"""The emulated service: accounts, projects, tasks, and every operation on them."""
