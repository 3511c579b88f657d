"""Made-up explanations, the items of them, and an application without a socket."""

from pathlib import Path

import pytest
from explained_files import write_explained
from starlette.testclient import TestClient

from experiments.rate.items import Items, make_items
from experiments.rate.server import create_app
from lab.guard import list_hosts

PORT = 8643


@pytest.fixture(scope="session")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `explain.py` writes of 48 texts."""
    folder = tmp_path_factory.mktemp("explained")
    write_explained(folder)
    return folder


@pytest.fixture(scope="session")
def items(explained: Path) -> Items:
    return make_items(explained, "one", "integrated_gradients", "random", 0)


@pytest.fixture
def client(items: Items, tmp_path: Path) -> TestClient:
    app = create_app(tmp_path, items, list_hosts(PORT, ()))
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
