"""Stage 5: what the API, metrics and health checks answer; no transport in here but HTTP's."""
