"""Waiting for processing tasks, on a worker and in the triggerer. Nothing in here knows Airflow.

- ``status_poller``: the blocking poll loop of a worker.
- ``watcher``: the poll loop of the triggerer, one for all waits on a connection and project. ``plan`` decides which
  requests a round needs, ``target_status`` reads a target by id, and ``wait`` is one wait.
- ``submission_queue``: submits one after the other for all triggers on a connection and project; ``submission_plan``
  decides whose turn it is. ``inbox`` hands events to one trigger, for both.
- ``snapshots`` and ``new_ends``: which tasks of a project have ended, for asset events. ``checkpoints`` and
  ``known_ends`` hold which of them an event trigger has emitted, and ``checkpoint_store`` stores that.
- ``outage``: the delays and log lines of an outage, for all of them.

``docs/contributing.md`` tells how to wait for another kind of resource.
"""
