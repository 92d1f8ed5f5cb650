"""What only the vendor itself does: a gateway without required keys takes any."""

import openai
import pytest

from test_chat import HELLO
from test_errors import assert_nothing_billed


def test_no_key(client, vendor, model):
    with pytest.raises(openai.AuthenticationError):
        stranger = client.with_options(api_key="")
        stranger.chat.completions.create(
            model=model, messages=HELLO, extra_headers={"Authorization": openai.Omit()}
        )
    assert_nothing_billed(vendor)
