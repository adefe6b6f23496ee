"""A scratch Airflow that runs a DAG file and prints what came of it."""
