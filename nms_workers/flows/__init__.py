"""Flow exports: received, decoded, enriched, looked at, kept."""
