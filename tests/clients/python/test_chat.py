"""Completions that are not streamed, as the real SDK reads them."""

import json

import pytest

from conftest import billed

HELLO = [{"role": "user", "content": "grüß Gott, 世界"}]
ECHO = "You said: grüß Gott, 世界"

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


def test_plain(client, vendor, model):
    completion = client.chat.completions.create(model=model, messages=HELLO)
    assert completion.id.startswith("chatcmpl-")
    assert completion.object == "chat.completion"
    [choice] = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == ECHO
    assert choice.finish_reason == "stop"
    row = vendor.only_row()
    assert row["billed"] == billed(completion.usage) == {"prompt_tokens": 3, "completion_tokens": 5}
    assert completion.usage.total_tokens == 8
    assert json.loads(row["body_text"])["messages"] == HELLO


def test_messages_of_all_kinds_arrive_as_they_were_sent(client, vendor, model):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what is the weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "rain\n\t\u2028\U0001f327"},
        {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "now?"}]},
    ]
    completion = client.chat.completions.create(model=model, messages=messages, temperature=0.5, seed=7)
    assert completion.choices[0].message.content == "You said: and now?"
    sent = json.loads(vendor.only_row()["body_text"])
    assert sent["messages"] == messages
    assert (sent["temperature"], sent["seed"]) == (0.5, 7)


def test_n(client, vendor, model):
    completion = client.chat.completions.create(model=model, messages=HELLO, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert [choice.message.content for choice in completion.choices] == [ECHO, ECHO]
    assert vendor.only_row()["billed"] == billed(completion.usage)
    assert completion.usage.completion_tokens == 10


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_limit(client, vendor, model, limit):
    completion = client.chat.completions.create(model=model, messages=HELLO, **{limit: 3})
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("You said: grüß", "length")
    assert vendor.only_row()["billed"] == billed(completion.usage)
    assert completion.usage.completion_tokens == 3


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_forced_tool(client, vendor, model, choice):
    completion = client.chat.completions.create(
        model=model, messages=HELLO, tools=[WEATHER], tool_choice=choice
    )
    [choice] = completion.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": HELLO[0]["content"], "days": 1}
    assert vendor.only_row()["billed"] == billed(completion.usage)


def test_long_text_in_chunks_of_one_byte(client, vendor, model):
    text = "Zwölf Boxkämpfer 日本語 \U0001f469\u200d\U0001f680 \r\n\u2028\u0085 \"\\\" " * 50
    vendor.script(reply=text, faults=[{"kind": "split", "bytes": 1}])
    completion = client.chat.completions.create(model=model, messages=HELLO)
    assert completion.choices[0].message.content == text
    assert vendor.only_row()["billed"] == billed(completion.usage)


def test_models(client, model):
    models = client.models.list()
    assert model in [listed.id for listed in models]
    assert all(listed.object == "model" for listed in models)
