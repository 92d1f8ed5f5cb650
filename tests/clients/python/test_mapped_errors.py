"""A vendor that fails, both ways: the vendor's own SDK and openai-python behind the gateway, which
maps, raise errors that mean the same and say the same."""

import anthropic
import openai
import pytest

import said
from conftest import Vendor

HELLO = [{"role": "user", "content": "grüß Gott"}]


@pytest.fixture
def model(request) -> str:
    """One for each test: a model that failed rests for a while."""
    return "claude-" + "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def ask(request, anthropic_client, client, vendor, model):
    """Raises what each SDK raises."""

    def ask(**asked) -> tuple[anthropic.APIStatusError, openai.APIStatusError]:
        asked = {"model": model, "max_tokens": 10, "messages": HELLO, "stream": request.param, **asked}
        with pytest.raises(anthropic.APIStatusError) as direct:
            anthropic_client.messages.create(**asked)
        with pytest.raises(openai.APIStatusError) as through:
            client.chat.completions.create(**asked)
        for row in vendor.rows(finished=2):
            assert row["path"] == "/v1/messages"
            assert row["billed"] == {"prompt_tokens": 0, "completion_tokens": 0}
        return direct.value, through.value

    return ask


def fail(vendor: Vendor, status: int, **members) -> None:
    # For ever: the gateway asks again, and the caller sees it all the same.
    vendor.script(bearer=True, faults=[{"kind": "status", "status": status, "times": 0, **members}])


@pytest.mark.parametrize(
    ("status", "by_vendor", "by_openai"),
    [
        (400, anthropic.BadRequestError, openai.BadRequestError),
        (404, anthropic.NotFoundError, openai.NotFoundError),
        (413, anthropic.ContentTooLargeError, openai.APIStatusError),
        (429, anthropic.RateLimitError, openai.RateLimitError),
        (500, anthropic.InternalServerError, openai.InternalServerError),
        (503, anthropic.ServiceUnavailableError, openai.InternalServerError),
        (529, anthropic.OverloadedError, openai.InternalServerError),
    ],
)
def test_statuses_and_words_of_the_vendor(ask, vendor, status, by_vendor, by_openai):
    fail(vendor, status)
    direct, through = ask()
    assert isinstance(direct, by_vendor) and isinstance(through, by_openai)
    assert through.status_code == direct.status_code == status
    assert through.body["message"] == direct.api_message
    kinds = {429: "rate_limit_error"}
    assert through.type == kinds.get(status, "invalid_request_error" if status < 500 else "server_error")


def test_when_to_come_again(ask, vendor):
    # Longer than the gateway waits itself.
    fail(vendor, 429, headers=[["retry-after", "7"]])
    direct, through = ask()
    assert through.response.headers["retry-after"] == direct.response.headers["retry-after"] == "7"
    assert len(vendor.rows()) == 2


def test_a_key_that_the_vendor_refuses_is_the_operators(ask, vendor):
    vendor.script(bearer=True, key="another")
    direct, through = ask()
    assert isinstance(direct, anthropic.AuthenticationError) and direct.status_code == 401
    # The client's own key is good: it must not be told to change it.
    assert (through.status_code, through.code) == (502, "upstream_refused_credential")
    assert "another" not in through.response.text and "sk-stand-in" not in through.response.text


def test_an_unknown_model(ask, vendor, model):
    vendor.script(bearer=True, models=["claude-other"])
    direct, through = ask()
    assert isinstance(direct, anthropic.NotFoundError) and isinstance(through, openai.NotFoundError)
    assert through.body["message"] == direct.api_message
    assert model in direct.api_message


def test_a_request_that_the_vendor_refuses(ask, vendor):
    vendor.script(bearer=True)
    direct, through = ask(extra_body={"thinking": {"type": "enabled", "budget_tokens": 5}})
    assert isinstance(direct, anthropic.BadRequestError) and isinstance(through, openai.BadRequestError)
    assert through.body["message"] == direct.api_message
    assert "budget_tokens" in direct.api_message


def test_an_error_in_place_of_an_answer(ask, vendor):
    words = "too much to do"
    envelope = f'{{"type": "error", "error": {{"type": "overloaded_error", "message": "{words}"}}}}'
    fail(vendor, 529, body=envelope)
    direct, through = ask()
    assert through.body["message"] == direct.api_message == words


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_one_failure_that_is_tried_again_is_not_seen(anthropic_client, client, vendor, model, stream):
    fault = {"kind": "status", "status": 529}
    asked = {"model": model, "max_tokens": 10, "messages": HELLO}
    vendor.script(bearer=True, faults=[fault])
    by_vendor = said.of_message(anthropic_client.with_options(max_retries=1).messages.create(**asked))
    vendor.script(bearer=True, faults=[fault])
    if stream:
        options = {"include_usage": True}
        chunks = list(client.chat.completions.create(stream=True, stream_options=options, **asked))
        by_gateway = said.of_chunks(chunks)
    else:
        by_gateway = said.of_completion(client.chat.completions.create(**asked))
    assert by_gateway == by_vendor
    assert [row["status"] for row in vendor.rows(finished=4)] == [529, 200, 529, 200]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error_in_200", "error_type": "overloaded_error"},
        {"kind": "cut"},
        {"kind": "malformed_json"},
        {"kind": "reset", "at": "body"},
    ],
    ids=lambda fault: fault["kind"],
)
def test_a_stream_that_fails_after_content(anthropic_client, client, vendor, model, fault):
    asked = {"model": model, "max_tokens": 10, "messages": HELLO}
    # Head, ping, start of the block, two of four words.
    fault = {**fault, "events": 5, "times": 0}
    vendor.script(bearer=True, reply="one two three four", faults=[fault])
    direct, through = [], []
    failed_direct = drain(anthropic_client.messages.create(stream=True, **asked), word_of, direct)
    failed_through = drain(
        client.chat.completions.create(stream=True, **asked),
        lambda chunk: chunk.choices[0].delta.content if chunk.choices else None,
        through,
    )
    # A reset may overtake what came before it.
    assert through == direct == ["one", " two"] or fault["kind"] == "reset"
    assert isinstance(failed_through, openai.APIError)
    if fault["kind"] == "error_in_200":
        assert isinstance(failed_direct, anthropic.APIStatusError)
        assert failed_direct.api_message in failed_through.message
    first, second = vendor.rows(finished=2)
    assert first["outcome"] == second["outcome"] == f"fault:{fault['kind']}"
    # Behind broken JSON the vendor goes on until it is left.
    if fault["kind"] != "malformed_json":
        assert first["billed"] == second["billed"] == {"prompt_tokens": 2, "completion_tokens": 2}


def word_of(event) -> str | None:
    return event.delta.text if event.type == "content_block_delta" else None


def drain(stream, word, words: list[str]) -> Exception | None:
    """Reads to the end, keeps the words, and says what the end was."""
    try:
        words.extend(filter(None, map(word, stream)))
    except Exception as error:
        return error
    return None


def test_a_client_that_leaves_stops_the_vendor(client, vendor, model):
    vendor.script(bearer=True, faults=[{"kind": "hang", "at": "body", "events": 4}])
    with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
        words = (chunk.choices[0].delta.content for chunk in stream)
        assert next(word for word in words if word) == "You"
    [row] = vendor.rows(finished=1)
    assert row["outcome"] == "fault:hang"  # which ends when the client is gone
    assert row["billed"] == {"prompt_tokens": 2, "completion_tokens": 1}
