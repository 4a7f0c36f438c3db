"""The cluster deployment as processes, on real servers."""
