"""The settings: what they are (`sections`), how they are written (`kinds`) and where they come from (`loading`)."""

from spanloom.config.loading import Effective, effective, load
from spanloom.config.reference import reference
from spanloom.config.sections import (
    AssemblyConfig,
    Config,
    DataConfig,
    HttpConfig,
    LogConfig,
    RawPolicy,
    SamplingConfig,
    SupervisionConfig,
)

__all__ = [
    "AssemblyConfig",
    "Config",
    "DataConfig",
    "Effective",
    "HttpConfig",
    "LogConfig",
    "RawPolicy",
    "SamplingConfig",
    "SupervisionConfig",
    "effective",
    "load",
    "reference",
]
