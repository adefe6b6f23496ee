"""Reading the small files that hold credentials, for both drivers and for the reading of a connection."""

from __future__ import annotations

from airflow_modelarts.api.http import FileReadError

#: Bytes; a token has a few KiB, a file of profiles hardly more.
MAX_FILE_BYTES = 1024 * 1024


def read_file(path: str) -> str:
    """Return the text of a file; it blocks.

    :raises FileReadError: it does not exist, is not a readable file, is too large, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise FileReadError("does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or "its path is not valid"
        raise FileReadError(f"cannot be read ({reason})") from None
    if len(content) > MAX_FILE_BYTES:
        raise FileReadError(f"has more than {MAX_FILE_BYTES} bytes", was_opened=True)
    try:
        return content.decode()
    except UnicodeDecodeError:  # it quotes the content, so it is not chained
        raise FileReadError("is not UTF-8 text", was_opened=True) from None
