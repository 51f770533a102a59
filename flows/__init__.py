"""Orchestration: the store, the Prefect flows and the `porf` command line."""
