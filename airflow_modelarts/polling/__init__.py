"""Waiting: backoff, the worker's poll loop, the triggerer's watcher, and the snapshots that asset events come from."""
