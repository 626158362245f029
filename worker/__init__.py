"""Effects: the only place with credentials, the Docker socket and SQL."""
