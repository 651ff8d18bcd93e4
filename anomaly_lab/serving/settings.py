"""Settings of the command `serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from anomaly_lab.types import Range


@dataclass
class Settings:
    """Settings of a server.

    Attributes:
        host: address to listen on; 127.0.0.1 is heard on this machine alone. The server asks nobody for a password.
        port: to listen on.
        queue: uploads that may wait; further ones are answered with 503.
        max_mb: largest upload, in MB.
        max_megavoxels: largest scan, in millions of pixels or voxels, by its header; a lower limit of the run stays.
        max_gb: memory that one upload may take, beyond that of the idle process, in GB.
        timeout: seconds that reading and scoring one upload may take.
        upload_timeout: seconds that receiving one upload may take.

    Examples:
        >>> Settings(port=9000).host
        '127.0.0.1'
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Range("[1, 65535]")] = 8000
    queue: Annotated[int, Range("[1, 100000]")] = 2000
    max_mb: Annotated[float, Range("(0, 100000]")] = 256.0
    max_megavoxels: Annotated[float, Range("(0, 1000000]")] = 128.0
    max_gb: Annotated[float, Range("(0, 100000]")] = 8.0
    timeout: Annotated[float, Range("(0, 86400]")] = 120.0
    upload_timeout: Annotated[float, Range("(0, 86400]")] = 60.0
