"""The steps of the pipeline, one module a stage: from artifacts to artifacts."""
