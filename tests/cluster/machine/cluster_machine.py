"""`core.hostname_callable` of the cluster's processes: they share a machine, and each shall think it has its own."""

from __future__ import annotations

import os


def hostname() -> str:
    return os.environ["CLUSTER_HOSTNAME"]
