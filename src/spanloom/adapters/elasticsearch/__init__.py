"""The trace store on Elasticsearch 8 and 9: one document a fragment, one index a day (design, section 7)."""

from spanloom.adapters.elasticsearch.client import ElasticsearchOptions
from spanloom.adapters.elasticsearch.store import ElasticsearchStatistics, ElasticsearchStore

__all__ = ["ElasticsearchOptions", "ElasticsearchStatistics", "ElasticsearchStore"]
