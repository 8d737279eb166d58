"""What is measured: the text by which records tell objectives apart."""

from mvssl.evaluation.subject import describe_terms
from mvssl.recipe import ObjectiveConfig


def test_the_text_of_an_objective_is_that_of_earlier_records():
    term = ObjectiveConfig.model_validate({"name": "cmc", "temperature": 0.1})
    assert describe_terms([term]) == "[(Objective(name='cmc', weight=1.0, temperature=0.1), '')]"
    assert describe_terms([]) == "[]"
