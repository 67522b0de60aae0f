"""How we speak to anything: deadlines, secrets, TLS, HTTP, retries, breakers, caches, balancing."""
