"""The operators, by what they do; import them from here. Whatever is heavy is imported where it runs."""

from __future__ import annotations

from airflow_modelarts.operators.tasks import ModelArtsDescribeProcessorTaskOperator

__all__ = ["ModelArtsDescribeProcessorTaskOperator"]
