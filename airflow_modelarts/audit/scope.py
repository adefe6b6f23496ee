"""Whose tasks an audit read, with which filters, and which run of which DAG did it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_modelarts.api.statuses import status_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose tasks an audit read, and which run did it. None is what is not known, and a filter that was not given.

    :param project_id: the project of the tasks.
    :param region: the region of the endpoint.
    :param host: the host name of the endpoint.
    :param template_id: the audit has only tasks of this template.
    :param source_type: only tasks with a data source of this type.
    :param source: only tasks with this data source.
    :param workspace_id: the workspace of the tasks; the service's default is "0".
    :param statuses: only tasks that have one of these statuses; empty for every status.
    :param dag_id: the DAG of the audit.
    :param run_id: its run.
    :param map_index: the index of a mapped audit, from 0.
    """

    project_id: str | None = None
    region: str | None = None
    host: str | None = None
    template_id: str | None = None
    source_type: str | None = None
    source: str | None = None
    workspace_id: str | None = None
    statuses: tuple[int, ...] = ()
    dag_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None

    @property
    def filters(self) -> dict[str, str | None]:
        """The filters of the list, under the operator's names of them."""
        given = {name: getattr(self, name) for name in ("template_id", "source_type", "source", "workspace_id")}
        # Left out unless it is given: reports that an earlier version of this package wrote do not have it.
        return {**given, "statuses": ", ".join(map(status_name, self.statuses))} if self.statuses else given

    def to_json(self) -> dict[str, Any]:
        """Return project, region, host, filters and, for a mapped audit, its index."""
        mapped = {} if self.map_index is None else {"map_index": self.map_index}
        return {
            "project_id": self.project_id,
            "region": self.region,
            "host": self.host,
            "filters": self.filters,
            **mapped,
        }
