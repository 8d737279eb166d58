"""What a line of progress says of many bounds at once."""

from mvssl.progress import bounds_in_words as told


def metrics(pairs: dict[str, tuple[float, float]], jsd: dict[str, float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for pair, (bound, ceiling) in pairs.items():
        found |= {f"bound/{pair}": bound, f"ceiling/{pair}": ceiling}
    for pair, value in jsd.items():
        found |= {f"bound/{pair}": -1e9, f"jsd/{pair}": value}
    return found


def test_up_to_three_bounds_are_named_each():
    assert told(metrics({"a-b": (1.0, 2.0)}, {"a-c": 0.5})) == ["a-b 1.00 of 2.00 nats", "a-c JSD 0.50 of 1.39"]


def test_of_many_the_mean_and_the_least_are_told_and_nats_never_meet_a_divergence():
    pairs = {"a-b": (1.0, 4.0), "a-c": (2.0, 4.0), "b-c": (3.0, 4.0)}
    assert told(metrics(pairs, {"x-y": 0.2, "x-z": 0.6})) == [
        "3 bounds, mean 2.00 of 4.00 nats, least 1.00 (a-b)",
        "2 bounds, mean JSD 0.40 of 1.39, least 0.20 (x-y)",
    ]
