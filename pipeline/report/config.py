"""Options of `report`."""

from pipeline.config import StageConfig


class ReportConfig(StageConfig):
    """The report has no options."""
