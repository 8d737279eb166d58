import pytest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Indexes of test shards go to a folder of the test's own."""
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path_factory.mktemp("cache")))
