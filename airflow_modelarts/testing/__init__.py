"""What runs pipelines on a laptop: a local ModelArts, a scratch Airflow, and the command ``airflow-modelarts``."""
