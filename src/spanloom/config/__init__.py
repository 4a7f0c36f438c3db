"""The settings: what they are (`sections`), how they are written (`kinds`) and where they come from (`loading`)."""

from spanloom.config.importing import Imported, import_policies
from spanloom.config.loading import Effective, effective, load
from spanloom.config.policies import read_policies
from spanloom.config.properties import client_properties
from spanloom.config.reference import reference
from spanloom.config.secrets import secret_of
from spanloom.config.sections import (
    AssemblyConfig,
    Config,
    DataConfig,
    ElasticsearchConfig,
    GrpcConfig,
    HttpConfig,
    IntakeConfig,
    KafkaConfig,
    KafkaIntakeConfig,
    LogConfig,
    RawPolicy,
    RedisConfig,
    SamplingConfig,
    SupervisionConfig,
)

__all__ = [
    "AssemblyConfig",
    "Config",
    "DataConfig",
    "Effective",
    "ElasticsearchConfig",
    "GrpcConfig",
    "HttpConfig",
    "Imported",
    "IntakeConfig",
    "KafkaConfig",
    "KafkaIntakeConfig",
    "LogConfig",
    "RawPolicy",
    "RedisConfig",
    "SamplingConfig",
    "SupervisionConfig",
    "client_properties",
    "effective",
    "import_policies",
    "load",
    "read_policies",
    "reference",
    "secret_of",
]
