"""Airflow operators, sensors and triggers for ModelArts processing tasks; nothing is imported until it is used."""

__version__ = "0.1.0"
