"""What a model said, whichever SDK read it: answers of both become one form, and can be compared."""

import json
from dataclasses import dataclass

import anthropic
import openai

# How an answer comes: at once, event by event, or event by event to the SDK's helper, which adds it up.
DELIVERIES = ["whole", "stream", "helper"]

# Anthropic's reasons as OpenAI has them.
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls"}


@dataclass(frozen=True)
class Said:
    text: str
    thinking: str
    # The vendor's own blocks of thinking, signatures included.
    opaque: list[dict]
    # Names and arguments, in order.
    calls: list[tuple[str, dict]]
    finish: str
    # All of the prompt, all of the answer, and what of the prompt came from a cache.
    usage: dict[str, int]


@dataclass
class Heard:
    """What openai-python makes of an answer."""

    said: Said
    # As a client sends it back: the SDK's own object, or what chunks add up to.
    message: dict | openai.types.chat.ChatCompletionMessage
    usage: openai.types.CompletionUsage


def by_anthropic(client: anthropic.Anthropic, delivery: str, request: dict) -> anthropic.types.Message:
    """Asks by anthropic-python, which has its helper for all streams."""
    if delivery == "whole":
        return client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        return stream.get_final_message()


def by_openai(client: openai.OpenAI, delivery: str, request: dict) -> Heard:
    """Asks by openai-python."""
    usage = {"stream_options": {"include_usage": True}}
    if delivery == "stream":
        chunks = list(client.chat.completions.create(stream=True, **usage, **request))
        return Heard(of_chunks(chunks), message_of(chunks), chunks[-1].usage)
    if delivery == "helper":
        with client.chat.completions.stream(**usage, **request) as stream:
            completion = _final_completion(stream)
    else:
        completion = client.chat.completions.create(**request)
    return Heard(of_completion(completion), completion.choices[0].message, completion.usage)


def of_message(message: anthropic.types.Message) -> Said:
    """As anthropic-python read it."""
    blocks = [block.to_dict() for block in message.content]
    of_kind = lambda *kinds: [block for block in blocks if block["type"] in kinds]
    usage = message.usage
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    return Said(
        text="".join(block["text"] for block in of_kind("text")),
        thinking="".join(block["thinking"] for block in of_kind("thinking")),
        opaque=of_kind("thinking", "redacted_thinking"),
        calls=[(block["name"], block["input"]) for block in of_kind("tool_use")],
        finish=FINISH[message.stop_reason],
        usage={
            "prompt_tokens": usage.input_tokens + cached + written,
            "completion_tokens": usage.output_tokens,
            "cached_tokens": cached,
        },
    )


def of_completion(completion: openai.types.chat.ChatCompletion) -> Said:
    """As openai-python read it."""
    [choice] = completion.choices
    return _said(choice.message.to_dict(), choice.finish_reason, completion.usage)


def of_chunks(chunks: list[openai.types.chat.ChatCompletionChunk]) -> Said:
    """As openai-python read it, event by event; the last one has the usage."""
    *chunks, last = chunks
    finish = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert len(finish) == 1 and last.choices == []
    return _said(message_of(chunks), finish[0], last.usage)


def message_of(chunks: list[openai.types.chat.ChatCompletionChunk]) -> dict:
    """The message that chunks add up to, to be sent back as it is."""
    message = {"role": "assistant", "content": "", "reasoning_content": "", "thinking_blocks": [], "tool_calls": []}
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta.to_dict()
            message["content"] += delta.get("content") or ""
            message["reasoning_content"] += delta.get("reasoning_content") or ""
            message["thinking_blocks"] += delta.get("thinking_blocks") or []
            for call in delta.get("tool_calls") or []:
                _add_call(message["tool_calls"], call)
    return {name: value for name, value in message.items() if value}


def asked(body: dict) -> dict:
    """A request as the vendor understands it: what can be written in two ways is in one, and calls are numbered."""
    text = json.dumps(body)
    ids = [
        block["id"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_use"
    ]
    for number, id in enumerate(ids):
        text = text.replace(id, f"call {number}")
    body = json.loads(text)
    body.setdefault("stream", False)
    for message in body["messages"]:
        message["content"] = _blocks(message["content"])
        for block in message["content"]:
            if block["type"] == "tool_result":
                block["content"] = _blocks(block["content"])
    if "system" in body:
        body["system"] = _blocks(body["system"])
    return body


def _final_completion(stream) -> openai.types.chat.ChatCompletion:
    try:
        return stream.get_final_completion()
    except openai.LengthFinishReasonError as error:
        # What the helper thinks of an answer that a limit cut.
        return error.completion


def _said(message: dict, finish: str, usage: openai.types.CompletionUsage) -> Said:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    details = usage.prompt_tokens_details
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return Said(
        text=message.get("content") or "",
        thinking=message.get("reasoning_content") or "",
        opaque=message.get("thinking_blocks") or [],
        calls=[(call["name"], json.loads(call["arguments"])) for call in calls],
        finish=finish,
        usage={
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_tokens": (details and details.cached_tokens) or 0,
        },
    )


def _add_call(calls: list[dict], piece: dict) -> None:
    """The first piece of a call has its id and name, the others have more of its arguments."""
    if piece["index"] == len(calls):
        function = {"name": piece["function"]["name"], "arguments": ""}
        calls.append({"id": piece["id"], "type": "function", "function": function})
    calls[piece["index"]]["function"]["arguments"] += piece["function"].get("arguments") or ""


def _blocks(content: str | list) -> list:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    # The SDK sends back what it was told was null.
    return [{name: value for name, value in block.items() if value is not None} for block in content]
