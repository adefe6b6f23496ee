"""`python -m airflow_modelarts` is `airflow-modelarts`."""

import sys

from airflow_modelarts.cli import main

if __name__ == "__main__":
    sys.exit(main())
