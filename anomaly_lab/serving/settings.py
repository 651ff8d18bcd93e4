"""Settings of the command `serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anomaly_lab.experiment.record import check
from anomaly_lab.experiment.schema import merged, to_object
from anomaly_lab.types import Range, UserError


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
        >>> Settings.split(["port=9000", "data.store.scoring_batch_size=1"])[1]
        ['data.store.scoring_batch_size=1']
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Range("[1, 65535]")] = 8000
    queue: Annotated[int, Range("[1, 100000]")] = 2000
    max_mb: Annotated[float, Range("(0, 100000]")] = 256.0
    max_megavoxels: Annotated[float, Range("(0, 1000000]")] = 128.0
    max_gb: Annotated[float, Range("(0, 100000]")] = 8.0
    timeout: Annotated[float, Range("(0, 86400]")] = 120.0
    upload_timeout: Annotated[float, Range("(0, 86400]")] = 60.0

    @classmethod
    def split(cls, words: Sequence[str]) -> tuple[Settings, list[str]]:
        """Split words `key=value` into these settings and the others, which go to the run.

        Raises:
            UserError: a setting cannot have such a value.
        """
        own = [word for word in words if word.partition("=")[0] in cls.__dataclass_fields__]
        try:
            given = OmegaConf.from_dotlist(own)
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{' '.join(own)}: the text after '=' is not valid YAML") from error
        found: Settings = to_object(merged(OmegaConf.structured(cls), given))
        try:
            check(asdict(found), cls)
        except ValueError as error:
            raise UserError(str(error)) from error
        return found, [word for word in words if word not in own]
