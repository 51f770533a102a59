"""Runs on workers: a Prefect server, deployments, and what operates them."""
