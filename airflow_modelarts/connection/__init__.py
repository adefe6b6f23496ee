"""
An Airflow connection of type ``modelarts``, read into the settings of calls.

``fields`` declares the connection's fields; ``values`` reads one of them; ``endpoints`` and ``credentials`` build on
that; ``reading.read`` puts the settings together. This module imports nothing, since Airflow loads ``fields`` in every
process.

To add a kind of credentials:

1. add it to ``api.credentials``;
2. name it in ``fields.AUTH_KINDS``, and declare the extras that it needs in ``fields.EXTRAS``: the forms of Airflow 2
   and 3 follow, and a test holds the table in the documentation against them;
3. build it from the connection's values in ``credentials.BUILDERS``. If it reads variables of the environment,
   ``values.Values`` must show it those.
"""
