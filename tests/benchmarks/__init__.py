"""What things cost, measured side by side in one run: ``python -m tests.benchmarks``. Nothing here asserts a time."""
