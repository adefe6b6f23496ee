"""Files in OBS: s3fs on the endpoint of a connection, with the connection's credentials.

``filesystem`` connects s3fs, ``keys`` signs its requests, ``errors`` explains its errors, and ``path`` makes
``obs://`` known to universal_pathlib. Only ``airflow_modelarts.filesystem`` and entry points load these modules, since
they import s3fs or universal_pathlib.
"""
