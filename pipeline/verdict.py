"""What a stage thinks of its own result."""

from typing import Any, Literal

from pydantic import BaseModel, Field


class Verdict(BaseModel):
    """Outcome of a stage that finished.

    Attributes:
        status: `ok`, or `warn` where a user should look before trusting the result.
        reasons: one sentence each, for a reader who has not seen the logs; required for `warn`.
        figures: the few numbers that characterise the result, plain data, units in the names.
        settings: what the stage decided for itself (device used, chunk size), for the manifest.
    """

    status: Literal["ok", "warn"] = "ok"
    reasons: list[str] = Field(default_factory=list)
    figures: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def from_warnings(cls, warnings: list[str], **figures: Any) -> "Verdict":
        """`warn` with these reasons, or `ok` where there are none."""
        return cls(status="warn" if warnings else "ok", reasons=warnings, figures=figures)

    def brief(self) -> dict[str, Any]:
        """Status and reasons as plain data, for a stage's own report beside its figures."""
        return self.model_dump(mode="json", include={"status", "reasons"})
