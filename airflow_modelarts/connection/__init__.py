"""An Airflow connection of type ``modelarts``, read into the settings of calls.

``fields`` declares the connection's fields; ``values`` reads one of them; ``endpoints`` and ``credentials`` build on
that; ``reading.read`` puts the settings together. This module imports nothing, since Airflow loads ``fields`` in every
process.

``docs/contributing.md`` tells how to add a kind of credentials. ``values.Values`` must show it the variables of the
environment that it reads.
"""
