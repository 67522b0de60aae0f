"""Which target is polled when, by whom, only once at a time, and how each due time ended."""
