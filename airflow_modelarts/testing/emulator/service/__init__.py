"""The emulated service: accounts, projects, tasks, and the operations on them. No HTTP."""
