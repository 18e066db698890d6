"""Which templates take a message's content as parts."""

from __future__ import annotations

import pytest

from shared.conversation import content_format

TEMPLATES = {
    "{% for m in messages %}{{ m.content }}{% endfor %}": "string",
    "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}": "openai",
    "{% for m in messages %}{% for p in m['content'] | list %}{{ p.text }}{% endfor %}{% endfor %}": "openai",
    "{% set all = messages[1:] %}{% for m in all %}{% for p in m.content %}{{ p }}{% endfor %}{% endfor %}": "openai",
    "{% for m in messages %}{% set content = m.content %}{% for p in content %}{% endfor %}{% endfor %}": "openai",
    "{% for m in messages %}{% set text = m.content %}{% for p in text %}{{ p }}{% endfor %}{% endfor %}": "string",
    "{% macro say(x) %}{% for p in x %}{{ p }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ say(m.content) }}{% endfor %}": "openai",
    "{% macro say(x) %}{% for p in x %}{{ p }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ say(x=m.content) }}{% endfor %}": "openai",
    "{% macro say(content) %}{% for p in content %}{{ p }}{% endfor %}{% endmacro %}"
    "{% for m in messages %}{{ say(m.tool_calls) }}{{ m.content }}{% endfor %}": "string",
    "{% for m in messages %}{% generation %}{% for p in m.content %}{{ p }}{% endfor %}{% endgeneration %}"
    "{% break %}{% endfor %}": "openai",
    "{% for a, b in messages %}{% for p in a.content %}{{ p }}{% endfor %}{% endfor %}": "string",
    "{% for m in messages": "string",
    "": "string",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_with_a_loop_over_a_messages_content_takes_parts(template: str) -> None:
    assert content_format(template) == TEMPLATES[template]
