"""`core.hostname_callable` of the cluster: its processes share a machine, and each has its own host name."""

import os


def hostname() -> str:
    return os.environ["CLUSTER_HOSTNAME"]
