"""Streams, as the real SDK reads them."""

import itertools
import json

import pytest

from conftest import billed
from test_chat import ECHO, HELLO, WEATHER

# Characters of one to four bytes, some of which are line ends to careless
# readers, and the line ends of SSE itself; no two sentences are the same.
LONG_TEXT = "".join(
    f"{number}. Zwölf Boxkämpfer 日本語テキスト \U0001f469\u200d\U0001f680 \u2028\u2029\u0085\x0b\x0c \r\n\n\r data: [DONE]\t"
    for number in range(20)
)


def contents(chunks, index: int = 0) -> str:
    """The content of one choice, joined."""
    choices = itertools.chain.from_iterable(chunk.choices for chunk in chunks)
    return "".join(choice.delta.content or "" for choice in choices if choice.index == index)


def test_plain(client, vendor, model):
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert contents(chunks) == ECHO
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    # Usage that the client did not ask for is not for the client.
    assert all(chunk.usage is None for chunk in chunks)
    assert vendor.only_row()["billed"] == {"prompt_tokens": 3, "completion_tokens": 5}


def test_usage(client, vendor, model):
    stream = client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert contents(chunks) == ECHO
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert vendor.only_row()["billed"] == billed(last.usage)
    assert last.usage.total_tokens == 8


def test_n(client, vendor, model):
    stream = client.chat.completions.create(
        model=model, messages=HELLO, n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [contents(chunks, index) for index in (0, 1)] == [ECHO, ECHO]
    assert vendor.only_row()["billed"] == billed(chunks[-1].usage)
    assert chunks[-1].usage.completion_tokens == 10


def test_limit(client, vendor, model):
    stream = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert contents(chunks) == "You said: grüß"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert vendor.only_row()["billed"] == billed(last.usage)
    assert last.usage.completion_tokens == 3


def test_helper(client, vendor, model):
    with client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        completion = stream.get_final_completion()
    assert "".join(deltas) == completion.choices[0].message.content == ECHO
    assert completion.choices[0].finish_reason == "stop"
    assert vendor.only_row()["billed"] == billed(completion.usage)


def test_helper_with_forced_tool(client, vendor, model):
    with client.chat.completions.stream(
        model=model,
        messages=HELLO,
        tools=[WEATHER],
        tool_choice="required",
        stream_options={"include_usage": True},
    ) as stream:
        completion = stream.get_final_completion()
    [call] = completion.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": HELLO[0]["content"], "days": 1}
    assert vendor.only_row()["billed"] == billed(completion.usage)


@pytest.mark.parametrize("multi_line_data", [False, True], ids=["one-line", "multi-line"])
@pytest.mark.parametrize("comments", [False, True], ids=["bare", "comments"])
@pytest.mark.parametrize("newline", ["lf", "crlf"])
def test_every_style_of_stream_split_at_every_byte(client, vendor, model, newline, comments, multi_line_data):
    vendor.script(
        reply=LONG_TEXT,
        sse={"newline": newline, "comments": comments, "multi_line_data": multi_line_data},
        faults=[{"kind": "split", "bytes": 1}],
    )
    stream = client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = stream
    assert contents(chunks) == LONG_TEXT
    row = vendor.only_row()
    assert row["fault"] == "split"
    assert row["billed"] == billed(last.usage)


@pytest.mark.parametrize("chunk_bytes", [2, 3, 1000])
def test_chunks_of_other_sizes(client, vendor, model, chunk_bytes):
    vendor.script(reply=LONG_TEXT, sse={"newline": "crlf", "comments": True, "chunk_bytes": chunk_bytes})
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert contents(chunks) == LONG_TEXT
    vendor.only_row()


def test_a_client_that_leaves_stops_the_vendor(client, vendor, model):
    vendor.script(faults=[{"kind": "hang", "at": "body", "events": 2}])
    with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
        words = (chunk.choices[0].delta.content for chunk in stream)
        assert next(word for word in words if word) == "You"
    [row] = vendor.rows(finished=1)
    assert row["outcome"] == "fault:hang"  # which ends when the client is gone
    assert row["billed"] == {"prompt_tokens": 3, "completion_tokens": 1}
