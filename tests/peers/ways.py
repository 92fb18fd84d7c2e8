"""A way to a front: a transport in an era. Tests nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """One transport in one era."""

    transport: str
    version: str

    def __str__(self) -> str:
        return f"{self.transport}-{self.version}"
