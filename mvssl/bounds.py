"""Numbers with bounds, for the signatures of views and objectives, which `mvssl.compose.construct` checks."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
