"""What goes wrong reaches the caller as the SDK's own exceptions, and is not billed."""

import httpx2
import openai
import pytest

from conftest import Vendor
from test_chat import HELLO


def assert_nothing_billed(vendor: Vendor) -> None:
    for row in vendor.rows():
        assert row["billed"] == {"prompt_tokens": 0, "completion_tokens": 0}


def test_unknown_model(client, vendor, model):
    vendor.script(models=[model])
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert raised.value.code == "model_not_found"
    assert "no-such-model" in raised.value.message
    assert_nothing_billed(vendor)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "wrong",
    [{"messages": []}, {"messages": "hello"}, {"messages": [{"role": "pope", "content": "x"}]}, {"max_tokens": 0}, {"n": 0}],
    ids=["no-messages", "messages-not-array", "role", "max-tokens", "n"],
)
def test_bad_request(client, vendor, model, wrong, stream):
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**{"model": model, "messages": HELLO, "stream": stream, **wrong})
    assert raised.value.type == "invalid_request_error"
    assert raised.value.param in wrong
    assert raised.value.message
    assert_nothing_billed(vendor)


def test_rate_limit(client, vendor, model):
    # For ever: behind a gateway that tries again, the caller sees it all the same.
    fault = {"kind": "status", "status": 429, "headers": [["retry-after", "1"]], "times": 0}
    vendor.script(faults=[fault])
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=model, messages=HELLO)
    assert raised.value.message
    assert_nothing_billed(vendor)


def test_vendor_down(client, vendor, model):
    vendor.script(faults=[{"kind": "status", "status": 503, "times": 0}])
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=model, messages=HELLO, stream=True)
    assert_nothing_billed(vendor)


def test_stream_that_breaks_off(client, vendor, model):
    vendor.script(faults=[{"kind": "reset", "at": "body", "events": 3}])
    words = []
    # As the transport sees it (a reset, or a body that ends too early), or as an error event.
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError, openai.APIError)):
        for chunk in client.chat.completions.create(model=model, messages=HELLO, stream=True):
            words += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    # A reset may discard what the other side has not read yet: a beginning arrives, nothing else.
    assert "You said:".startswith("".join(words))
    [row] = vendor.rows(finished=1)
    assert row["outcome"] == "fault:reset"
    assert row["billed"] == {"prompt_tokens": 3, "completion_tokens": 2}
