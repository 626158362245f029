"""What the API says and takes, as types. A test holds them against the OpenAPI document the server serves."""
