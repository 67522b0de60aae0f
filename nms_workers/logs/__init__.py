"""Logs of containers and files, shipped to Elasticsearch or kept as events: each line once, whatever is killed."""
