"""What the tests of the real SDK talk to, and how they read the books behind it.

The target comes from the environment, so that the same tests run straight
against the stand-in and through the gateway:

SLUICE_TEST_BASE_URL      what the SDK talks to, up to and with /v1
SLUICE_TEST_SIMULATE_URL  the stand-in behind it: control API and books
SLUICE_TEST_MODEL         the model asked for (gpt-4o-mini)
SLUICE_TEST_VENDOR        the vendor's name in the stand-in (default)
SLUICE_TEST_KEY           the key the SDK sends (test-key)

Tests of a mapped vendor have a second client, which speaks the vendor's own
wire to the stand-in; tests with a witness have more addresses, in their file.
"""

import json
import os
import urllib.request

import anthropic
import openai
import pytest

# Above what a busy machine needs for any one request.
TIMEOUT_S = 30


class Vendor:
    """The stand-in behind the target, by its control API."""

    # The environment's proxies are for the outside, not for a local stand-in.
    _opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __init__(self, url: str, name: str):
        self._url = url.rstrip("/")
        self.name = name

    def script(self, **script) -> None:
        """Replaces the vendor's script."""
        self._control("PUT", f"vendors/{self.name}", script)

    def reset(self) -> None:
        """Forgets the vendor's script and the books."""
        self._control("DELETE", f"vendors/{self.name}")
        self._control("DELETE", "books")

    def rows(self, finished: int = 0) -> list[dict]:
        """The vendor's rows for answers, once so many rows are finished."""
        books = self._control("GET", f"books?vendor={self.name}&finished={finished}")
        return [row for row in books["rows"] if row["path"].endswith(("/chat/completions", "/messages"))]

    def only_row(self) -> dict:
        """The one row there is, which must be complete."""
        rows = self.rows(finished=1)
        assert len(rows) == 1
        assert rows[0]["outcome"] == "complete"
        assert rows[0]["status"] == 200
        return rows[0]

    def _control(self, method: str, path: str, body: dict | None = None):
        request = urllib.request.Request(
            f"{self._url}/_simulate/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
        )
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return json.loads(response.read() or "null")


def billed(usage) -> dict:
    """The usage that the SDK read, as the books write it."""
    return {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}


def client_options(base_url: str) -> dict:
    return {
        "base_url": base_url,
        "api_key": os.environ.get("SLUICE_TEST_KEY", "test-key"),
        # A retry would hide a fault, and show up as a second row.
        "max_retries": 0,
        "timeout": TIMEOUT_S,
    }


@pytest.fixture
def model() -> str:
    return os.environ.get("SLUICE_TEST_MODEL", "gpt-4o-mini")


@pytest.fixture
def vendor():
    vendor = Vendor(
        os.environ["SLUICE_TEST_SIMULATE_URL"],
        os.environ.get("SLUICE_TEST_VENDOR", "default"),
    )
    vendor.reset()
    yield vendor
    vendor.reset()


@pytest.fixture
def client():
    with openai.DefaultHttpxClient(trust_env=False) as http_client:
        yield openai.OpenAI(http_client=http_client, **client_options(os.environ["SLUICE_TEST_BASE_URL"]))


@pytest.fixture
def anthropic_client():
    """The vendor's own client, straight to the stand-in."""
    with anthropic.DefaultHttpxClient(trust_env=False) as http_client:
        yield anthropic.Anthropic(
            http_client=http_client,
            # The version of the API that the adapter speaks; the SDK's own has no `temperature`.
            default_headers={"anthropic-version": "2023-06-01"},
            **client_options(os.environ["SLUICE_TEST_SIMULATE_URL"]),
        )


@pytest.fixture
def new_async_client():
    """Makes an async client; to be called, and closed, within an event loop."""
    return lambda: openai.AsyncOpenAI(
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        **client_options(os.environ["SLUICE_TEST_BASE_URL"]),
    )
