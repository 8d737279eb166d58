"""Objectives: Features of each view and a Context in, a loss and what it measured out.

An objective is a module whose constructor takes the views' `Widths` and keyword-only options, and whose
`forward(features, context)` returns the same global loss on every process, with detached 0-d metrics; `represent`
gives what it compares. Any class of that shape works by its import path; `docs/objectives.md` shows one in one file.
"""

from mvssl.objectives.amdim import AMDIM
from mvssl.objectives.cmc import CMC
from mvssl.objectives.context import Context
from mvssl.objectives.dim import DIM
from mvssl.objectives.infomax import InfoMax
from mvssl.objectives.mib import MIB
from mvssl.objectives.predict import Predict

OBJECTIVES = {"dim": DIM, "amdim": AMDIM, "cmc": CMC, "mib": MIB, "infomax": InfoMax, "predict": Predict}

__all__ = ["AMDIM", "CMC", "DIM", "MIB", "OBJECTIVES", "Context", "InfoMax", "Predict"]
