"""Which authorities of a zone issue, will issue, and have issued: one small file whose rename is each step of rotation.

prepare makes an authority that issues nothing yet, activate lets it issue, rotate renews under it, prune ends the
former one (`certs.rollover`). An authority is named after its key's identifier; a zone's first is `first`.
"""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from certs.errors import ZoneDamaged
from certs.files import write_atomically

FIRST: Final = "first"
"""The authority that a zone was created with."""

Name = Annotated[str, Field(pattern=r"^(first|[0-9a-f]{16})$")]
"""The name of an authority, and of its folder."""


class Standing(BaseModel):
    """Where a rotation of the authority stands; the default is a zone that never began one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    current: Name = FIRST
    """Issues."""
    prepared: Name | None = None
    """Is trusted, and issues nothing yet."""
    former: Name | None = None
    """Issued until the current one was activated; what it issued is trusted still."""
    since: AwareDatetime | None = None
    """When the last step was made."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every authority that is trusted, the current one first."""
        return tuple(name for name in (self.current, self.prepared, self.former) if name is not None)

    @classmethod
    def read(cls, path: Path) -> "Standing":
        """Read where it stands; raises `ZoneDamaged` where the file is none of ours."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except (OSError, ValidationError) as error:
            raise ZoneDamaged(f"{path} cannot be read: {error}", "restore it from the last backup") from error

    def write(self, path: Path) -> None:
        """Make it so, whole or not at all."""
        write_atomically(path, self.model_dump_json(exclude_none=True).encode() + b"\n")
