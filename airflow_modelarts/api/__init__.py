"""The ModelArts processing-task API as plain values: no Airflow, no sockets, no clock of its own."""
