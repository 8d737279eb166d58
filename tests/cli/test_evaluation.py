"""The help of the commands that evaluate."""

from mvssl.cli.evaluation import PROBE_NAMES
from mvssl.evaluation.probes import PROBES


def test_the_help_names_every_probe():
    assert set(PROBE_NAMES.split(", ")) == set(PROBES)
