"""The async client: alone, streaming, and many at once."""

import asyncio

from conftest import billed
from test_chat import ECHO, HELLO
from test_stream import contents


def test_plain(new_async_client, vendor, model):
    async def run():
        async with new_async_client() as client:
            return await client.chat.completions.create(model=model, messages=HELLO)

    completion = asyncio.run(run())
    assert completion.choices[0].message.content == ECHO
    assert vendor.only_row()["billed"] == billed(completion.usage)


def test_stream(new_async_client, vendor, model):
    async def run():
        async with new_async_client() as client:
            stream = await client.chat.completions.create(
                model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
            return [chunk async for chunk in stream]

    *chunks, last = asyncio.run(run())
    assert contents(chunks) == ECHO
    assert vendor.only_row()["billed"] == billed(last.usage)


def test_many_at_once_do_not_mix(new_async_client, vendor, model):
    async def ask(client, number: int):
        messages = [{"role": "user", "content": f"number {number}"}]
        stream = await client.chat.completions.create(
            model=model, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        return [chunk async for chunk in stream]

    async def run():
        async with new_async_client() as client:
            return await asyncio.gather(*(ask(client, number) for number in range(50)))

    answers = asyncio.run(run())
    for number, chunks in enumerate(answers):
        assert contents(chunks) == f"You said: number {number}"
    rows = vendor.rows(finished=50)
    assert len(rows) == 50
    assert {row["outcome"] for row in rows} == {"complete"}
    read = [billed(chunks[-1].usage) for chunks in answers]
    assert sum(row["billed"]["completion_tokens"] for row in rows) == sum(
        usage["completion_tokens"] for usage in read
    )
    assert sum(row["billed"]["prompt_tokens"] for row in rows) == sum(usage["prompt_tokens"] for usage in read)
