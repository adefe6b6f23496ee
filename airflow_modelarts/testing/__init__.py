"""Tools to try DAGs without a cloud account: a local ModelArts, a scratch Airflow, and ``airflow-modelarts``."""
