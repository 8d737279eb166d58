import time
import tracemalloc

import pytest

SECONDS, MEMORY = 20, 160 << 20  # CPU time of all inputs of one test; bytes at most at once, for inputs of some kB


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Indexes of test shards go to a folder of the test's own."""
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def bounds():
    """Fail a test that takes too much time or memory."""
    tracemalloc.start()
    begin = time.process_time()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - begin < SECONDS
    assert peak < MEMORY
