"""
Waiting for processing tasks, on a worker and in the triggerer. Nothing in here knows Airflow.

- ``status_poller``: the blocking poll loop of a worker.
- ``watcher``: the poll loop of the triggerer, one for all waits on a connection and project. ``plan`` decides which
  requests a round needs, ``target_status`` reads a target by id, and ``wait`` holds one wait and its events.
- ``snapshots`` and ``new_ends``: which tasks of a project have ended, for asset events. ``checkpoints`` and
  ``known_ends`` hold which of them an event trigger has emitted, and ``checkpoint_store`` stores that.
- ``outage``: the delays and log lines of an outage, for all of them.

To wait for another kind of resource, for example training jobs:

1. Add its describe operation to ``api.operations``, what names the resource to ``api.targets.Target``, and its terminal
   statuses to ``api.statuses``, which ``wait`` and ``watcher`` ask.
2. Read its status in ``target_status.describe_status``, and keep it out of the lists of processing tasks in
   ``plan.plan_round``, as versions are. It then takes one request a target and round.
3. If a list shows which ones are active, let ``plan_round`` add them to ``missing`` under a key of their own, and read
   that list in ``Watcher._read_lists``.
4. Give the trigger and the sensor an argument for the new id. Waits, events, outages and sharing stay as they are.
"""
