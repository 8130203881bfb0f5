"""What the API server serves."""
