"""Features: built once per partition, by one definition, never from the future."""
