"""Airflow operators, sensors and triggers for ModelArts processing tasks; nothing is imported until it is used."""

__version__ = "1.0.0"
