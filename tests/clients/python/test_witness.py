"""A stand-in that others wrote (aimock): with the gateway before it, SDKs read what they read straight
from it; and our own stand-in's streams have the shapes of its streams.

SLUICE_TEST_WITNESS_URL  the witness, which the gateway's upstreams are too
"""

import json
import os
import urllib.request

import anthropic
import httpx2
import openai
import pytest

import said
from conftest import TIMEOUT_S, Vendor, client_options

WITNESS = os.environ["SLUICE_TEST_WITNESS_URL"]

# What is asked, by the fixtures in tests/clients/witness.
TEXT, TOOLS, BOTH = "say a text", "call two tools", "say and call"
THINKS, SECRET, LIMIT = "think aloud", "think in secret", "stop at the limit"

PARAMETERS = {"type": "object", "properties": {}}
ON_OPENAI = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("weather", "time")]
ON_ANTHROPIC = [{"name": name, "input_schema": PARAMETERS} for name in ("weather", "time")]


@pytest.fixture(params=said.DELIVERIES)
def delivery(request) -> str:
    return request.param


@pytest.fixture
def openai_direct():
    """openai-python, straight to the witness."""
    with openai.DefaultHttpxClient(trust_env=False) as http_client:
        yield openai.OpenAI(http_client=http_client, **client_options(f"{WITNESS}/v1"))


@pytest.fixture
def anthropic_direct():
    """anthropic-python, straight to the witness."""
    with anthropic.DefaultHttpxClient(trust_env=False) as http_client:
        yield anthropic.Anthropic(http_client=http_client, **client_options(WITNESS))


class Journal:
    """The witness's own books."""

    _opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def forget(self) -> None:
        self._open("POST", "reset/journal")

    def paths(self) -> list[str]:
        return [entry["path"] for entry in json.loads(self._open("GET", "journal"))]

    def _open(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(f"{WITNESS}/__aimock/{path}", method=method)
        with self._opener.open(request, timeout=TIMEOUT_S) as response:
            return response.read()


@pytest.fixture
def journal() -> Journal:
    journal = Journal()
    journal.forget()
    return journal


def on_openai(text: str, **request) -> dict:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "tools": ON_OPENAI, **request}


def on_anthropic(text: str, **request) -> dict:
    messages = [{"role": "user", "content": text}]
    return {"model": "claude-witness", "max_tokens": 3000, "messages": messages, "tools": ON_ANTHROPIC, **request}


def mapped(text: str, **request) -> dict:
    return on_openai(text, **{"model": "claude-witness", "max_tokens": 3000, **request})


# === The gateway before the witness ===


@pytest.mark.parametrize("text", [TEXT, TOOLS, BOTH, THINKS, LIMIT])
def test_the_same_wire(openai_direct, client, journal, delivery, text):
    direct = said.by_openai(openai_direct, delivery, on_openai(text)).said
    through = said.by_openai(client, delivery, on_openai(text)).said
    assert through == direct
    assert through.text or through.calls
    assert journal.paths() == ["/v1/chat/completions"] * 2


def test_the_same_wire_event_by_event(openai_direct, client):
    def events(client) -> list[dict]:
        stream = client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **on_openai(BOTH)
        )
        return [without_own(chunk.to_dict()) for chunk in stream]

    direct = events(openai_direct)
    assert events(client) == direct
    assert len(direct) > 5


def without_own(value):
    """All but what each answer has of its own."""
    if isinstance(value, dict):
        return {name: without_own(inner) for name, inner in value.items() if name not in ("id", "created")}
    return [without_own(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("text", [TEXT, TOOLS, BOTH, LIMIT])
def test_mapped(anthropic_direct, client, journal, delivery, text):
    direct = said.of_message(said.by_anthropic(anthropic_direct, delivery, on_anthropic(text)))
    through = said.by_openai(client, delivery, mapped(text)).said
    assert through == direct
    assert through.text or through.calls
    assert journal.paths() == ["/v1/messages"] * 2


@pytest.mark.parametrize("text", [THINKS, SECRET])
def test_mapped_thinking(anthropic_direct, client, delivery, text):
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    direct = said.of_message(said.by_anthropic(anthropic_direct, delivery, on_anthropic(text, **thinking)))
    through = said.by_openai(client, delivery, mapped(text, extra_body=thinking)).said
    assert through == direct
    assert len(through.opaque) == (3 if text == SECRET else 1)


@pytest.mark.parametrize("text", [TEXT, TOOLS, BOTH])
def test_both_wires_of_the_witness_through_one_gateway(client, delivery, text):
    same_wire = said.by_openai(client, delivery, on_openai(text)).said
    assert said.by_openai(client, delivery, mapped(text)).said == same_wire


def test_what_tools_say_goes_back(client, delivery):
    for ask in (on_openai, mapped):
        first = said.by_openai(client, delivery, ask(TOOLS))
        calls = first.message["tool_calls"] if delivery == "stream" else first.message.to_dict()["tool_calls"]
        results = [
            {"role": "tool", "tool_call_id": call["id"], "content": content}
            for call, content in zip(calls, ["rain", "noon"], strict=True)
        ]
        messages = [{"role": "user", "content": TOOLS}, first.message, *results]
        answer = said.by_openai(client, delivery, ask(TOOLS, messages=messages)).said
        assert (answer.text, answer.finish) == ("It is noon, and it rains.", "stop")


def test_a_refusal(openai_direct, anthropic_direct, client):
    text = "refuse for now"
    with pytest.raises(openai.RateLimitError) as same_wire:
        openai_direct.chat.completions.create(**on_openai(text))
    with pytest.raises(anthropic.RateLimitError) as vendors:
        anthropic_direct.messages.create(**on_anthropic(text))
    assert same_wire.value.body["message"] == vendors.value.api_message == "Come back later."
    for ask in (on_openai, mapped):
        with pytest.raises(openai.RateLimitError) as through:
            client.chat.completions.create(**ask(text))
        assert through.value.body["message"] == "Come back later."
        assert through.value.response.headers["retry-after"] == "9"


def test_another_answer_is_seen(anthropic_direct, client, delivery):
    direct = said.of_message(said.by_anthropic(anthropic_direct, delivery, on_anthropic(TEXT)))
    assert said.by_openai(client, delivery, mapped(BOTH)).said != direct


# === Our stand-in beside the witness ===

STAND_IN = os.environ["SLUICE_TEST_SIMULATE_URL"]


def events_of(base_url: str, path: str, request: dict) -> list[tuple[str | None, dict | None]]:
    """Names and data of all events as they are on the wire; comments are no events."""
    headers = {"authorization": "Bearer k", "x-api-key": "k", "anthropic-version": "2023-06-01"}
    with httpx2.Client(trust_env=False, timeout=TIMEOUT_S) as http_client:
        response = http_client.post(f"{base_url}/v1/{path}", json={**request, "stream": True}, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    events = []
    for block in response.text.split("\n\n")[:-1]:
        fields = [line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":")]
        name, data = dict(fields).get("event"), dict(fields)["data"]
        events.append((name, None if data == "[DONE]" else json.loads(data)))
    return events


def kinds(event: tuple[str | None, dict | None]) -> list[tuple]:
    """What an event is on either wire, whatever it says."""
    name, data = event
    if data is None:
        return [("[DONE]",)]
    if name is not None:
        assert name == data["type"]
        part = data.get("delta") or data.get("content_block") or {}
        return [(name, data.get("index"), part.get("type"), part.get("stop_reason"))]
    if not data["choices"]:
        return [("usage",)]
    [choice] = data["choices"]
    delta, finish = choice["delta"], choice["finish_reason"]
    calls = [("call", call["index"], "begins" if "id" in call else "goes on") for call in delta.get("tool_calls", [])]
    # The role stands alone or in the event of the first call: OpenAI does both.
    return [
        *([("role",)] if "role" in delta else []),
        *([("content",)] if delta.get("content") else []),
        *calls,
        *([(finish,)] if finish else []),
    ]


def shape(events) -> list[tuple]:
    """The kinds of events in their order, however many pieces there are of one thing; a ping may come at any time."""
    found = [kind for event in events if event[0] != "ping" for kind in kinds(event)]
    return [kind for index, kind in enumerate(found) if index == 0 or found[index - 1] != kind]


def members(events) -> set[str]:
    """Where a stream has members, as paths; those that are null are as good as not there."""
    found = set()

    def walk(value, path: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{path}.{name}")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, f"{path}[]")
        elif value is not None:
            found.add(path)

    for name, data in events:
        walk(data, name or "")
    return found


def openai_request(text: str) -> dict:
    return on_openai(text, stream_options={"include_usage": True})


@pytest.mark.parametrize(
    ("path", "ask", "text", "script"),
    [
        ("chat/completions", openai_request, TEXT, {}),
        ("chat/completions", openai_request, TOOLS, {"calls": True, "parallel_calls": 2}),
        ("messages", on_anthropic, TEXT, {}),
        ("messages", on_anthropic, TOOLS, {"calls": True, "parallel_calls": 2}),
        ("messages", on_anthropic, THINKS, {"thinking": "two and two"}),
    ],
    ids=["openai-text", "openai-tools", "anthropic-text", "anthropic-tools", "anthropic-thinking"],
)
def test_streams_have_the_shapes_of_the_witness(vendor: Vendor, path, ask, text, script):
    request = ask(text)
    if "thinking" in script:
        request["thinking"] = {"type": "enabled", "budget_tokens": 1024}
    vendor.script(**script)
    by_witness, by_us = events_of(WITNESS, path, request), events_of(STAND_IN, path, request)
    assert shape(by_us) == shape(by_witness)
    assert members(by_us) >= members(by_witness)


@pytest.mark.parametrize("path", ["chat/completions", "messages"])
@pytest.mark.parametrize("fault", [{"kind": "cut", "events": 4}, {"kind": "no_usage"}], ids=["cut", "no_usage"])
def test_another_shape_is_seen(vendor: Vendor, path, fault):
    request = openai_request(TEXT) if path == "chat/completions" else on_anthropic(TEXT)
    by_witness = events_of(WITNESS, path, request)
    vendor.script(faults=[fault])
    by_us = events_of(STAND_IN, path, request)
    assert shape(by_us) != shape(by_witness) or not members(by_us) >= members(by_witness)
