"""``verify``: which loss goes to which engine, and what their findings add up to."""
