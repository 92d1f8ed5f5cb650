"""The same question to one vendor, both ways: by the vendor's own SDK straight, and by openai-python
through the gateway, which maps. What is asked, what is said and what it costs must be the same."""

import asyncio
import base64
import json
from dataclasses import fields

import anthropic
import openai
import pytest

import said
from conftest import Vendor
from said import Said

# Of one to four bytes a letter, with what careless readers take for line ends.
TEXT = "grüß Gott, 世界 \U0001f469\u200d\U0001f680 \u2028\u0085 \\ \" data: [DONE] end"
HELLO = [{"role": "user", "content": TEXT}]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n no real one").decode()

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "sure": {"type": "boolean"}},
    "required": ["city", "days"],
}
TIME = {"type": "object", "properties": {}}
WEATHER_CALL = ("weather", {"city": TEXT, "days": 1, "sure": True})

TOOLS = [
    {"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER},
    {"name": "time", "input_schema": TIME},
]
FUNCTIONS = [
    {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "time", "parameters": TIME}},
]

# Thinking as the vendor has it, and both ways to ask for it on OpenAI's wire: an effort raises the
# limit by its budget, the vendor's own member passes.
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3024}
ASKS_FOR_THINKING = {
    "effort": {"reasoning_effort": "low", "max_tokens": 2000},
    "own": {"extra_body": {"thinking": THINKING["thinking"]}, "max_tokens": 3024},
}


class BothWays:
    """Asks one vendor by both SDKs, and has the answers delivered in one way."""

    def __init__(self, anthropic_client, client, vendor: Vendor, delivery: str):
        self._direct, self._through, self._vendor, self._delivery = anthropic_client, client, vendor, delivery
        self.script()

    def script(self, **script) -> None:
        # anthropic-python sends its key as a bearer.
        self._vendor.script(bearer=True, **script)

    def direct(self, **request) -> anthropic.types.Message:
        """The vendor's message, by its own SDK."""
        request = {"model": "claude-both", "max_tokens": 500, "messages": HELLO, **request}
        return said.by_anthropic(self._direct, self._delivery, request)

    def through(self, **request) -> said.Heard:
        """What openai-python reads behind the gateway."""
        request = {"model": "claude-both", "max_tokens": 500, "messages": HELLO, **request}
        return said.by_openai(self._through, self._delivery, request)

    def ask(self, direct: dict = {}, through: dict = {}) -> Said:
        """What both SDKs read, if it is the same, and if the vendor was asked the same and bills it."""
        before = len(self._vendor.rows())
        by_vendor, by_gateway = said.of_message(self.direct(**direct)), self.through(**through).said
        assert by_gateway == by_vendor
        asked_direct, asked_through = self.questions(before, by_vendor)
        assert asked_through == asked_direct
        return by_vendor

    def questions(self, before: int, answer: Said) -> list[dict]:
        """The two questions after so many, which came over one path and are billed as the answer says."""
        rows = self._vendor.rows(finished=before + 2)[before:]
        assert len(rows) == 2
        for row in rows:
            assert (row["method"], row["path"], row["query"]) == ("POST", "/v1/messages", None)
            assert (row["status"], row["outcome"]) == (200, "complete")
            assert row["billed"] == {name: answer.usage[name] for name in row["billed"]}
        return [said.asked(json.loads(row["body_text"])) for row in rows]


@pytest.fixture(params=said.DELIVERIES)
def both(request, anthropic_client, client, vendor) -> BothWays:
    return BothWays(anthropic_client, client, vendor, request.param)


@pytest.fixture
def both_streamed(anthropic_client, client, vendor) -> BothWays:
    return BothWays(anthropic_client, client, vendor, "stream")


def test_text(both):
    answer = both.ask()
    assert (answer.text, answer.finish) == (f"You said: {TEXT}", "stop")
    assert answer.usage == {"prompt_tokens": 9, "completion_tokens": 11, "cached_tokens": 0}


def test_each_way_sends_its_own_credential(both, vendor):
    both.ask()
    direct, through = (dict(row["headers"]) for row in vendor.rows())
    assert (direct["authorization"], direct.get("x-api-key")) == ("Bearer test-key", None)
    # The operator's and not the client's.
    assert (through.get("authorization"), through["x-api-key"]) == (None, "sk-stand-in")
    assert through["anthropic-version"] == direct["anthropic-version"]


def test_system_and_sampling(both):
    conversation = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "then"},
        {"role": "user", "content": "last"},
    ]
    sampling = {"temperature": 0.5, "top_p": 0.25}
    answer = both.ask(
        # The SDK has no names for what newer models and versions of the API refuse.
        {"system": "be brief", "messages": conversation, "metadata": {"user_id": "u"}, "extra_body": sampling},
        {"messages": [{"role": "system", "content": "be brief"}, *conversation], "user": "u", **sampling},
    )
    assert answer.text == "You said: last"


def test_stop_sequence(both):
    both.script(reply="one two STOP three")
    answer = both.ask({"stop_sequences": ["STOP", "never"]}, {"stop": ["STOP", "never"]})
    assert (answer.text, answer.finish) == ("one two ", "stop")


@pytest.mark.parametrize("limit", [{"max_tokens": 3}, {"max_tokens": openai.omit, "max_completion_tokens": 3}])
def test_limit(both, limit):
    answer = both.ask({"max_tokens": 3}, limit)
    assert (answer.text, answer.finish) == ("You said: grüß", "length")
    assert answer.usage["completion_tokens"] == 3


def test_usage_of_caches(both):
    both.script(usage={"cached_input": 1000, "cache_write": 200})
    answer = both.ask()
    assert answer.usage == {"prompt_tokens": 1209, "completion_tokens": 11, "cached_tokens": 1000}


def test_marks_for_the_cache(both):
    mark = {"cache_control": {"type": "ephemeral"}}
    parts = [{"type": "text", "text": "long", **mark}, {"type": "text", "text": " and short"}]
    both.script(usage={"cached_input": 1000})
    asked = {"messages": [{"role": "user", "content": parts}]}
    answer = both.ask(asked, asked)
    assert (answer.text, answer.usage["cached_tokens"]) == ("You said: long and short", 1000)


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ({"type": "base64", "media_type": "image/png", "data": PIXEL}, f"data:image/png;base64,{PIXEL}"),
        ({"type": "url", "url": "https://example.org/a.png"}, "https://example.org/a.png"),
    ],
    ids=["base64", "url"],
)
def test_image(both, source, url):
    text = {"type": "text", "text": "what is this?"}
    answer = both.ask(
        {"messages": [{"role": "user", "content": [text, {"type": "image", "source": source}]}]},
        {"messages": [{"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": url}}]}]},
    )
    # Three words, and what the stand-in takes for an image.
    assert answer.usage["prompt_tokens"] == 3 + 85


@pytest.mark.parametrize(
    ("by_vendor", "by_openai"),
    [
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
    ],
    ids=["any", "named"],
)
def test_forced_tool(both, by_vendor, by_openai):
    answer = both.ask(
        {"tools": TOOLS, "tool_choice": by_vendor}, {"tools": FUNCTIONS, "tool_choice": by_openai}
    )
    assert (answer.text, answer.calls, answer.finish) == ("", [WEATHER_CALL], "tool_calls")


def test_parallel_tools(both):
    both.script(calls=True, parallel_calls=3)
    answer = both.ask({"tools": TOOLS}, {"tools": FUNCTIONS})
    assert answer.calls == [WEATHER_CALL, ("time", {}), WEATHER_CALL]


def test_one_tool_at_a_time(both):
    both.script(calls=True, parallel_calls=3)
    answer = both.ask(
        {"tools": TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"tools": FUNCTIONS, "parallel_tool_calls": False},
    )
    assert answer.calls == [WEATHER_CALL]


def test_no_tool(both):
    both.script(calls=True)
    answer = both.ask(
        {"tools": TOOLS, "tool_choice": {"type": "none"}}, {"tools": FUNCTIONS, "tool_choice": "none"}
    )
    assert (answer.calls, answer.finish) == ([], "stop")


def test_what_tools_say_goes_back(both, vendor):
    both.script(calls=True, parallel_calls=2)
    message = both.direct(tools=TOOLS)
    choice = both.through(tools=FUNCTIONS).message
    results = ["rain\n\t\u2028", "noon"]
    direct, through = results_of(message, results), results_of_choice(choice, results)
    answer = both.ask(
        {"tools": TOOLS, "messages": [*HELLO, {"role": "assistant", "content": message.content}, direct]},
        {"tools": FUNCTIONS, "messages": [*HELLO, choice, *through]},
    )
    assert (answer.text, answer.finish) == (f"You said: {TEXT}", "stop")
    # The results are of the prompt: one word each.
    assert answer.usage["prompt_tokens"] == 9 + 2


def results_of(message, results: list[str]) -> dict:
    """The user's turn that answers the vendor's calls."""
    calls = [block.id for block in message.content if block.type == "tool_use"]
    block = lambda id, result: {"type": "tool_result", "tool_use_id": id, "content": result}
    return {"role": "user", "content": [block(*pair) for pair in zip(calls, results, strict=True)]}


def results_of_choice(choice, results: list[str]) -> list[dict]:
    """The messages that answer OpenAI's calls."""
    calls = choice["tool_calls"] if isinstance(choice, dict) else [call.to_dict() for call in choice.tool_calls]
    message = lambda call, result: {"role": "tool", "tool_call_id": call["id"], "content": result}
    return [message(*pair) for pair in zip(calls, results, strict=True)]


@pytest.mark.parametrize("ask", ASKS_FOR_THINKING)
def test_thinking(both, ask):
    both.script(thinking=f"First {TEXT}", reply="Then this.")
    answer = both.ask(THINKING, ASKS_FOR_THINKING[ask])
    assert (answer.thinking, answer.text) == (f"First {TEXT}", "Then this.")
    [block] = answer.opaque
    assert block["type"] == "thinking" and block["signature"]


def test_thinking_that_nobody_asked_for_is_not_there(both):
    both.script(thinking="First this.")
    answer = both.ask()
    assert (answer.thinking, answer.opaque) == ("", [])


def test_thinking_goes_back_with_what_tools_say(both):
    both.script(thinking=f"First {TEXT}", calls=True)
    ask = ASKS_FOR_THINKING["effort"]
    message = both.direct(tools=TOOLS, **THINKING)
    choice = both.through(tools=FUNCTIONS, **ask).message
    answer = both.ask(
        {
            "tools": TOOLS,
            "messages": [*HELLO, {"role": "assistant", "content": message.content}, results_of(message, ["rain"])],
            **THINKING,
        },
        {"tools": FUNCTIONS, "messages": [*HELLO, choice, *results_of_choice(choice, ["rain"])], **ask},
    )
    assert (answer.thinking, answer.text) == (f"First {TEXT}", f"You said: {TEXT}")


def test_thinking_goes_back_in_a_conversation(both):
    both.script(thinking=f"First {TEXT}", reply="Yes.")
    ask, again = ASKS_FOR_THINKING["effort"], {"role": "user", "content": "and again"}
    message = both.direct(**THINKING)
    choice = both.through(**ask).message
    answer = both.ask(
        {"messages": [*HELLO, {"role": "assistant", "content": message.content}, again], **THINKING},
        {"messages": [*HELLO, choice, again], **ask},
    )
    assert answer.text == "Yes."


@pytest.mark.parametrize("change", ["left out", "forged"])
def test_thinking_that_does_not_go_back_as_it_was_is_refused(both, change):
    both.script(thinking="First this.", calls=True)
    ask = ASKS_FOR_THINKING["effort"]
    message = both.direct(tools=TOOLS, **THINKING)
    heard = both.through(tools=FUNCTIONS, **ask)
    answer = {"role": "assistant", **(heard.message if isinstance(heard.message, dict) else heard.message.to_dict())}
    blocks = [block.to_dict() for block in message.content]
    if change == "left out":
        del blocks[0], answer["thinking_blocks"]
    else:
        blocks[0]["thinking"] = answer["thinking_blocks"][0]["thinking"] = "First that."
    turns = [*HELLO, {"role": "assistant", "content": blocks}, results_of(message, ["rain"])]
    with pytest.raises(anthropic.BadRequestError) as direct:
        both.direct(tools=TOOLS, messages=turns, **THINKING)
    with pytest.raises(openai.BadRequestError) as through:
        both.through(tools=FUNCTIONS, messages=[*HELLO, answer, *results_of_choice(answer, ["rain"])], **ask)
    assert through.value.body["message"] == direct.value.api_message


def test_tokens_written_to_the_cache_are_told(both):
    both.script(usage={"cached_input": 1000, "cache_write": 200})
    assert both.direct().usage.cache_creation_input_tokens == 200
    assert both.through().usage.prompt_tokens_details.cache_write_tokens == 200


def test_tokens_of_thinking_are_told(both):
    both.script(thinking="one two three", usage={"reasoning": 40})
    by_vendor = both.direct(**THINKING).usage.output_tokens_details.thinking_tokens
    assert by_vendor == 43
    details = both.through(**ASKS_FOR_THINKING["effort"]).usage.completion_tokens_details
    assert details and details.reasoning_tokens == by_vendor


@pytest.mark.parametrize("multi_line_data", [False, True], ids=["one-line", "multi-line"])
@pytest.mark.parametrize("comments", [False, True], ids=["bare", "comments"])
@pytest.mark.parametrize("newline", ["lf", "crlf"])
def test_every_style_of_stream_split_at_every_byte(both_streamed, newline, comments, multi_line_data):
    both_streamed.script(
        thinking=f"First {TEXT}",
        calls=True,
        parallel_calls=2,
        sse={"newline": newline, "comments": comments, "multi_line_data": multi_line_data, "chunk_bytes": 1},
    )
    answer = both_streamed.ask(
        {"tools": TOOLS, **THINKING}, {"tools": FUNCTIONS, **ASKS_FOR_THINKING["effort"]}
    )
    assert (answer.thinking, answer.calls) == (f"First {TEXT}", [WEATHER_CALL, ("time", {})])


def test_many_at_once_do_not_mix(new_async_client, vendor):
    vendor.script(bearer=True)

    async def ask(client, number: int) -> Said:
        stream = await client.chat.completions.create(
            model="claude-many",
            messages=[{"role": "user", "content": f"number {number}"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        return said.of_chunks([chunk async for chunk in stream])

    async def run() -> list[Said]:
        async with new_async_client() as client:
            return await asyncio.gather(*(ask(client, number) for number in range(50)))

    answers = asyncio.run(run())
    assert [answer.text for answer in answers] == [f"You said: number {number}" for number in range(50)]
    rows = vendor.rows(finished=50)
    assert [(row["path"], row["outcome"]) for row in rows] == [("/v1/messages", "complete")] * 50


# Ways for one of two answers to differ, and the one member that shows it.
OTHERS = {
    "text": {"reply": "something else of five words"},
    "thinking": {"thinking": "three other words"},
    "calls": {"parallel_calls": 2},
    "usage": {"usage": {"cached_input": 1, "cache_write": 0}},
}


@pytest.mark.parametrize("member", OTHERS)
def test_another_answer_is_seen(both, member):
    first = {"reply": "something said in five words", "thinking": "some three words", "calls": member == "calls"}
    both.script(**first)
    by_vendor = said.of_message(both.direct(tools=TOOLS, **THINKING))
    both.script(**{**first, **OTHERS[member]})
    by_gateway = both.through(tools=FUNCTIONS, **ASKS_FOR_THINKING["effort"]).said
    names = [field.name for field in fields(Said)]
    differing = {name for name in names if getattr(by_vendor, name) != getattr(by_gateway, name)}
    # Signatures are of thoughts, and a call more costs tokens.
    assert differing - {"opaque"} - ({"usage"} if member == "calls" else set()) == {member}


def test_wrong_usage_is_seen(both):
    by_vendor = said.of_message(both.direct())
    both.script(faults=[{"kind": "wrong_usage"}])
    by_gateway = both.through().said
    assert by_gateway.usage == {"prompt_tokens": 1, "completion_tokens": 1, "cached_tokens": 0}
    assert by_gateway != by_vendor


@pytest.mark.parametrize(("member", "value"), [("temperature", 0.25), ("top_p", 0.5), ("max_tokens", 499)])
def test_another_question_is_seen(both, member, value):
    answer = said.of_message(both.direct())
    both.through(**{member: value})
    direct, through = both.questions(0, answer)
    assert {name for name in {*direct, *through} if direct.get(name) != through.get(name)} == {member}
