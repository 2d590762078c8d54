#!/usr/bin/env python3
"""Renders chat templates with python3-jinja2: mutated and written ones into tests/data/template_mutations.json, those of
real models (tests/data/templates) into tests/data/model_templates.json; chat_template_test compares with both. Every
template runs on every conversation. Run again after a change here:
    /usr/bin/python3 tests/text/make_template_mutations.py
The environment is transformers': sandboxed, trim_blocks and lstrip_blocks on, its own tojson and strftime_now."""
import datetime
import json
import pathlib

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"

# Of the demo model's own template: (name, text to replace, replacement). Each changes what is rendered.
OWN = json.loads((DATA / "chat_template.json").read_text())["template"]
EDITS = [
    ("own", "", ""),
    ("other_default_system", "You are a helpful AI assistant named SmolLM, trained by Hugging Face", "In verse."),
    ("other_markers", "<|im_", "<|seg_"),
    ("condition_inverted", "messages[0]['role'] != 'system'", "messages[0]['role'] == 'system'"),
    ("first_to_last", "loop.first and", "loop.last and"),
    ("attribute_access", "message['content']", "message.content"),
    ("trimmed_content", "message['content']", "message['content'] | trim"),
    ("upper_role", "message['role'] + '\n' + message", "message['role'].upper() + '\n' + message"),
    ("numbered", "'<|im_start|>' + message", "loop.index ~ '/' ~ loop.length ~ ' <|im_start|>' + message"),
    ("own_variable_renamed", "message", "m"),
    ("only_users", "for message in messages", "for message in messages if message.role == 'user'"),
    ("last_two", "for message in messages", "for message in messages[-2:]"),
    ("reversed", "for message in messages", "for message in messages[::-1]"),
    ("no_condition_on_prompt", "if add_generation_prompt", "if not add_generation_prompt"),
    ("prompt_unless_last_is_assistant", "if add_generation_prompt",
     "if add_generation_prompt and messages[-1].role != 'assistant'"),
    ("eos_appended", "'<|im_end|>' + '\n'}}", "'<|im_end|>' + eos_token }}"),
    ("newline_escaped", "'\n'", "'\\n'"),
    ("content_between_bars", "message['content']", "'|' ~ message['content'].strip() ~ '|'"),
    ("length_before_content", "message['content']", "(message['content'] | length) ~ ':' ~ message['content']"),
    ("empty_content_replaced", "message['content']", "(message['content'] or '(nothing)')"),
    ("assistant_renamed", "message['role'] +", "('bot' if message['role'] == 'assistant' else message['role']) +"),
    ("counted_down", "'<|im_start|>' + message", "loop.revindex0 ~ '<|im_start|>' + message"),
    ("depth_shown", "'<|im_start|>' + message", "'<' ~ loop.depth ~ loop.depth0 ~ '|im_start|>' + message"),
    ("change_of_role_marked", "message['role'] +",
     "('*' if loop.previtem is defined and loop.previtem.role != message.role else '') + message['role'] +"),
    ("next_announced", "'<|im_end|>' + '\n'}}",
     "'<|im_end|>' + (loop.nextitem.role if loop.nextitem is defined else 'end') + '\n'}}"),
    ("every_second", "for message in messages", "for message in messages[::2]"),
    ("first_only", "for message in messages", "for message in messages if loop is not defined and message == messages[0]"),
]

WRITTEN = {
    "trim_blocks": "{% for m in messages %}\n{{ m.role }}: {{ m.content }}\n{% endfor %}\nend\n",
    "lstrip_blocks":
        "  {% for m in messages %}\n    {% if m.role == 'user' %}\n  - {{ m.content }}\n\t{% endif %}\n  "
        "{% endfor %}done\n\n",
    "lstrip_only_alone": "x {% if true %} y {% endif %} z\n  {{ 1 }} {% if true %}\nq{% endif %}",
    "minus_signs": "a \n {%- for m in messages -%} \n {{- m.role -}} \n , {%- endfor %} \n b",
    "plus_signs": "a\n  {%+ if true +%}\n  b\n  {%+ endif %}\nc",
    "minus_on_text": "  {{- '  a  ' -}}  \n\n  {{ ' b ' }}  \n",
    "comments":
        "{# one #}\na\n  {# two\n lines #}\nb {#- three -#} c {# {{ no }} {% no %} #}\nd{#-#} e{#--#}f{"
        "#+ +#}\ng",
    "crlf": "a\r\n{% if true %}\r\nb\rc\r\n{% endif %}\r\n'{{ 'x\r\ny' }}'\r\n",
    "unicode_space": "a\u00a0\u2003{%- if true -%}\u3000 b {%- endif -%}\u200b c",
    "empty": "",
    "only_newline": "\n",
    "braces_in_text": "{ % } { { } } {a} }} %} #} {{ '}}' }}{{ '{%' }} {",
    "strings": "{{ \"a\\tb\\\\c\\'d\\\"e\\x41\\u00e9\\U0001F600\\101\\q\" }}{{ 'one' \"two\" 'three' }}{{ 'it''s' }}",
    "literals":
        "{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} {{ 1_000 }} {{ 0 }} {{ -5 }} {{ --5 }} "
        "{{ - 5 | string }}",
    "undefined_prints_nothing":
        "[{{ nothing }}][{{ messages[99] }}][{{ messages[0].nothing }}][{{ messages[0]['x'] }}]["
        "{{ 'a' if false }}]",
    "arithmetic":
        "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 + 3 * 4 - 1 }} {{ (2 + 3) * 4 }}"
        " {{ true + 1 }} {{ 7 // -1 }}",
    "concatenation": "{{ 1 ~ 2 ~ none ~ true ~ nothing ~ 'x' }} {{ 'a' ~ 'b' + 'c' ~ 'd' }}",
    "number_plus_concatenation": "{{ 1 + 2 ~ 3 }}",
    "comparisons":
        "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ '\u00e9' > 'z' }} {{ 1 == true }} "
        "{{ 1 == '1' }} {{ none == false }} {{ nothing == nowhere }} {{ [1, 'a'] == [1, 'a'] }} "
        "{{ [1] != [2] }} {{ 2 >= 2 }} {{ 3 <= 2 }}",
    "logic_gives_operands":
        "{{ '' or 'x' }} {{ 0 or none }} {{ 'a' and 'b' }} {{ '' and 'b' }}| {{ not '' }} {{ not not 1 }} "
        "{{ not 1 == 2 }} {{ 1 and 2 or 3 }} {{ nothing or 'd' }}",
    "membership":
        "{{ 'ell' in 'hello' }} {{ 1 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'role' in messages[0] }} "
        "{{ 'x' in messages[0] }} {{ '' in '' }} {{ 1 in nothing }} {{ not 1 in [2] }} {{ true in [1] }}",
    "inline_if":
        "{{ 'a' if 1 else 'b' }}{{ 'a' if 0 else 'b' if 0 else 'c' }}{{ ('x' if messages else 'y') ~ 'z' }}"
        "{{ 1 if 0 if 1 else 2 }}{{ 1 if (0 if 1 else 2) else 3 }}",
    "indexing":
        "{{ 'h\u00e9llo'[1] }}{{ 'hello'[-1] }}{{ [1, 2, 3][-2] }}{{ 'hello'[9] }}{{ messages[-1].role }}"
        "{{ [[1, 2], [3]][1][0] }}{{ [1, 2][true] }}{{ messages[0]['ro' ~ 'le'] }}",
    "slices":
        "{{ 'h\u00e9llo'[1:3] }} {{ 'hello'[::-1] }} {{ 'hello'[-3:-1] }} {{ 'hello'[:2] }} {{ 'hello'[3:] }} "
        "{{ 'hello'[10:] }}| {{ 'hello'[::2] }} {{ 'hello'[4:0:-2] }} {{ [1, 2, 3][1:] | join }} "
        "{{ [1, 2, 3][:] | length }} {{ 'abc'[none:2] }} {{ 'abc'[-99:99] }} {{ 'abc'[5:1:-1] }}",
    "slice_of_number": "{% set n = 1 %}{{ n[1:] }}",
    "slice_of_message": "{{ messages[0][1:] }}",
    "slice_to_undefined": "{{ messages[:nothing] }}",
    "loop_state":
        "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}"
        "{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}"
        "{{ loop.previtem.role if loop.previtem else '-' }}"
        "{{ loop.nextitem.role if loop.nextitem is defined else '-' }};{% endfor %}",
    "loop_filtered_state":
        "{% for m in messages if m.role != 'system' %}{{ loop.index }}/{{ loop.length }}{{ m.role }}"
        "{{ ',' if not loop.last }}{% else %}none{% endfor %}",
    "loop_else":
        "{% for m in [] %}x{% else %}empty{% endfor %}{% for m in nothing %}x{% else %}undefined{% endfor %}"
        "{% for m in [1] %}x{% else %}y{% endfor %}",
    "loops_nested":
        "{% for a in [1, 2] %}{% for b in ['x', 'y'] %}{{ loop.index }}{{ a }}{{ b }}{% endfor %}"
        "{{ loop.index }}{% endfor %}{{ loop }}{{ a }}",
    "loop_over_text_and_keys":
        "{% for c in 'a\u00e9\u4e2d' %}<{{ c }}>{% endfor %}{% for k in messages[0] %}{{ k }};{% endfor %}",
    "loop_scope":
        "{% set x = 'out' %}{% for i in [1, 2, 3] %}{{ x }}{% set x = i %}{{ x }};{% endfor %}{{ x }}"
        "{% if true %}{% set x = 'if' %}{% endif %}{{ x }}{% for x in [9] %}{{ x }}{% endfor %}{{ x }}",
    "loop_over_itself": "{% set x = [1, 2] %}{% for x in x if x > 1 %}{{ x }}{% endfor %}{{ x | length }}",
    "set_system":
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
        "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}["
        "{{ system }}]{% for m in rest %}{{ m.role[0] }}{% endfor %}",
    "elif_chain":
        "{% for m in messages %}{% if m.role == 'system' %}S{% elif m.role == 'user' %}U"
        "{% elif m.role == 'assistant' %}A{% else %}?{% endif %}{% endfor %}",
    "filters":
        "{{ ' x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 'aB' | upper }}{{ 'aB' | lower }}|"
        "{{ 'a\u00e9' | length }}{{ [1, 2] | count }}|{{ [1, 'a', none] | join('-') }}|{{ 'abc' | first }}"
        "{{ 'abc' | last }}{{ [] | first }}|{{ 12 | string ~ 'x' }}|{{ nothing | upper }}{{ nothing | length }}"
        "{{ [1, 2] | join }}{{ 5 | trim }}{{ messages[0] | length }}{{ messages[0] | first }}",
    "filter_default":
        "{{ nothing | default('d') }}{{ '' | default('d') }}{{ '' | default('d', true) }}{{ none | d('x') }}"
        "{{ none | default('x', boolean=true) }}{{ nothing | default }}"
        "{{ nothing | default(default_value='k') }}{{ nothing | d(messages[0].role) }}",
    "filters_chained":
        "{{ ' A b ' | trim | lower | length ~ '!' }}{{ (messages | length) - 1 }}{{ messages | length - 1 }}",
    "tests":
        "{{ nothing is defined }} {{ nothing is not defined }} "
        "{{ messages is defined and messages is iterable }} {{ none is none }} {{ 'a' is string }} "
        "{{ 1 is string }} {{ 1 is not string }} {{ true is boolean }} {{ 1 is boolean }} {{ 1 is integer }} "
        "{{ true is integer }} {{ true is number }} {{ messages[0] is mapping }} {{ messages is sequence }} "
        "{{ messages[0] is string }} {{ nothing is undefined }} {{ 'a' is sequence }} {{ 1 is iterable }} "
        "{{ none is iterable }} {{ nothing is iterable }}",
    "tests_with_arguments":
        "{{ 4 is even }} {{ 3 is odd }} {{ -3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} "
        "{{ 'a' is eq 'a' }} {{ 1 is ne 2 }} {{ 'a' is in ['a', 'b'] }} {{ 'a' is equalto('b') }} "
        "{{ 1 is in [2] or 2 is in [2] }} {{ true is true }} {{ 1 is true }} {{ false is false }}",
    "test_binds_tighter":
        "{{ not nothing is defined }} {{ 'a' ~ 1 is string }} {{ 1 == 1 is string }} {{ -1 is number }}",
    "methods":
        "{{ ' x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|"
        "{{ 'aB'.upper() }}{{ 'aB'.lower() }}|{{ 'hello'.startswith('he') }}{{ 'hello'.endswith('x') }}|"
        "{{ '\u3000\u00a0x\u2003'.strip() }}|{{ 'a'.strip(none) }}",
    "method_split":
        "{{ 'a,b,,c'.split(',') | join('|') }} {{ ' a  b c '.split() | join('|') }} "
        "{{ 'a,b,c'.split(',', 1) | last }} {{ ' a  b  c '.split(none, 1)[1] }}| {{ ''.split() | length }} "
        "{{ ''.split(',') | length }} {{ 'a</think>b'.split('</think>')[-1].strip() }} "
        "{{ 'aXXbXXc'.split('XX', maxsplit=1)[1] }} {{ ','.split(',') | length }} {{ ' '.split() | length }} "
        "{{ 'a b'.split(sep=' ')[0] }} {{ ' 1 '.split(none, 0)[0] }}|",
    "lists_added": "{% set l = [1] + [2, 3,] %}{{ l | join(',') }}{{ ([] + messages) | length }}",
    "tools_and_documents":
        "{% if tools %}T{% endif %}{{ tools is none }}{{ documents is defined and documents is not none }}",
    "tokens": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    "raise_when_no_user":
        "{% if messages[-1].role != 'user' %}"
        "{{ raise_exception('The last message is from ' ~ messages[-1].role) }}{% endif %}ok",
    "alternation_checked":
        "{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}[{{ m.role }}]{% endfor %}",
    "operation_on_undefined": "a{{ nothing + 'x' }}",
    "attribute_of_undefined": "{{ nothing.attribute }}",
    "attribute_of_missing": "{{ messages[0].nothing.more }}",
    "text_plus_number": "{{ 'a' + 1 }}",
    "number_compared_with_text": "{{ 1 < 'a' }}",
    "membership_in_number": "{{ 1 in 2 }}",
    "division_by_zero": "{{ 1 // 0 }}",
    "loop_over_number": "{% for x in 3 %}{% endfor %}",
    "slice_of_step_zero": "{{ 'abc'[::0] }}",
    "method_of_number": "{% set n = 1 %}{{ n.strip() }}",
    "split_at_nothing": "{{ 'a'.split('') }}",
    "zephyr":
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
        "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "llama_2":
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
        "{% endif %}{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}"
        "{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    "qwen_like":
        "{%- if messages[0].role == 'system' %}\n    "
        "{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n{%- else %}\n    "
        "{{- '<|im_start|>system\\nDefault.<|im_end|>\\n' }}\n{%- endif %}\n{%- for message in messages %}"
        "\n    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) %}"
        "\n        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    "
        "{%- elif message.role == \"assistant\" %}\n        {%- set content = message.content %}\n        "
        "{%- if '</think>' in content %}\n            "
        "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n        "
        "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}\n    {%- endif %}\n"
        "{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
    "namespace":
        "{% set ns = namespace(n=0, seen='', last=none) %}{% for m in messages %}{% set ns.n = ns.n + loop.index %}"
        "{% set ns.seen = ns.seen ~ m.role[0] %}{% set ns.last = m %}{% set ns.fresh = true %}{% endfor %}"
        "{{ ns.n }}{{ ns.seen }}{{ ns['last'].role }}{{ ns.fresh }}{{ ns.missing is defined }}{{ ns is mapping }}"
        "{{ ns is iterable }}{{ ns == ns }}{{ ns == namespace() }}{{ 'y' if namespace() }}{{ ns.n is defined }}",
    "namespace_in_loop":
        "{% for m in messages %}{% set ns = namespace(x=1) %}{% for n in messages %}{% set ns.x = ns.x + 1 %}"
        "{% endfor %}{{ ns.x }},{% endfor %}{{ ns is defined }}",
    "namespace_of_namespaces": "{% set a = namespace() %}{% set b = namespace(a=a) %}{% set a.b = b %}{% set a.n = 7 %}{{ b.a.b.a.n }}",
    "attribute_of_no_namespace": "{% set x = 1 %}{% set x.y = 2 %}",
    "attribute_of_a_message_set": "{% for m in messages %}{% set m.role = 2 %}{% endfor %}",
    "attribute_of_nothing_set": "{% set nothing.y = 2 %}",
    "namespace_iterated": "{% for x in namespace(a=1) %}{% endfor %}",
    "namespace_added": "{{ namespace(a=1) + 1 }}",
    "loop_over_pairs":
        "{% for k, v in messages[0].items() %}{{ loop.index }}{{ k }}={{ v }};{% endfor %}"
        "{% for k, v in messages[0] | items if k != 'role' %}{{ k }}={{ v }}{{ loop.last }}{% else %}none{% endfor %}"
        "{% for a, b, c in ['xyz', [1, 2, 3]] %}{{ c }}{{ b }}{{ a }}{% endfor %}{{ nothing | items | list | length }}",
    "too_few_to_unpack": "{% for a, b in [[1]] %}{% endfor %}",
    "too_many_to_unpack": "{% for a, b in ['xyz'] %}{% endfor %}",
    "nothing_to_unpack": "{% for a, b in [1] %}{% endfor %}",
    "items_of_text": "{{ 'a' | items | list }}",
    "items_method_of_text": "{{ messages[0].role.items() }}",
    "selection":
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
        "{{ (messages | selectattr('role', 'eq', 'user') | list)[-1].content }}"
        "{{ messages | rejectattr('role', 'in', ['user', 'tool']) | list | length }}"
        "{{ messages | selectattr('nothing') | list | length }}{{ messages | selectattr('nothing', 'defined') | list | length }}"
        "{{ [1, 2, 3, 4] | select('odd') | join }}{{ [1, 2, 3, 4] | reject('divisibleby', 3) | join(', ') }}"
        "{{ ['a', '', 'b'] | select | join }}{{ ['a', '', 'b'] | reject | list | length }}{{ nothing | select | list | length }}"
        "{% for m in messages | selectattr('content', 'string') %}{{ loop.index }}{% endfor %}",
    "selection_from_number": "{{ 5 | select('odd') | list }}",
    "selection_without_argument": "{{ [1] | select('divisibleby') | list }}",
    "lists_made": "{{ 'a\u00e9' | list | join('-') }}{{ messages[0] | list | join('-') }}{{ [1] | list | length }}{{ nothing | list | length }}",
    "list_of_number": "{{ 1 | list }}",
    "json":
        "{{ messages | tojson }}{{ messages[0] | tojson(indent=4) }}{{ [] | tojson(indent=2) }}{{ [[], [1, [true]]] | tojson(indent=2) }}"
        "{{ 'q\"b\\\\s/<>&\\u00e9\\x01\\x7f\\n\\t' | tojson }}{{ none | tojson }}{{ -5 | tojson }}{{ [1, 'a'] | tojson(indent=0) }}",
    "json_of_nothing": "{{ nothing | tojson }}",
    "json_of_namespace": "{{ namespace() | tojson }}",
    "time": "{{ strftime_now('%d %b %Y') }}{{ strftime_now('%A %a %B %m %H:%M:%S %I %p %y %j %% x') }}{{ strftime_now is defined }}",
    "time_without_format": "{{ strftime_now(1) }}",
}

CONVERSATIONS = [
    [("user", "Hi")],
    [("system", " Be brief. "), ("user", "Count to 3.\n"), ("assistant", "<think>\nhm\n</think>\n\n1 2 3"),
     ("user", "Thanks")],
    [("user", "  spaces and\ttabs  "), ("tool", "{{ 1 }}{% x %}"), ("assistant", "\u00e9\u4e2d\U0001f600")],
]

# For the templates of models.
MORE_CONVERSATIONS = [
    [("system", "Be kind."), ("user", " a \n"), ("assistant", " b\n"), ("user", "c"), ("assistant", "d"), ("user", "e")],
    [("user", "a"), ("assistant", "<think>\n\nwhy\n</think>\n\nb</think> c"), ("user", "<tool_response>x</tool_response>")],
    [("user", "a"), ("assistant", "begun, to go on with")],
    [("system", "only a system message")],
    [("user", "a"), ("user", "twice")],
    [("user", "a"), ("system", "late"), ("user", "b")],
    [("user", ""), ("assistant", ""), ("user", "\u00e9\u4e2d \U0001f600 </s> <|eot_id|> [INST]")],
]


class Raised(Exception):
    pass


def raise_exception(message):
    raise Raised(message)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime.datetime(2026, 2, 3, 16, 5, 9).strftime(format)


def render(template, messages, add_generation_prompt):
    try:
        return {"text": template.render(messages=messages, add_generation_prompt=add_generation_prompt, bos_token="<s>",
                                        eos_token="</s>", tools=None, documents=None)}
    except Raised as raised:
        return {"raised": str(raised)}
    except (jinja2.TemplateRuntimeError, TypeError, ValueError, ZeroDivisionError):
        return {"fails": True}


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    environment.filters["tojson"] = to_json
    conversations = [[{"role": role, "content": content} for role, content in c] for c in CONVERSATIONS]
    sources = {}
    for name, old, new in EDITS:
        sources["own_" + name] = OWN.replace(old, new) if old else OWN
    sources.update(WRITTEN)
    def rendered(source, conversations):
        template = environment.from_string(source)
        return [[render(template, c, prompt) for prompt in (False, True)] for c in conversations]

    cases = [{"name": name, "template": source, "rendered": rendered(source, conversations)} for name, source in sources.items()]
    same = [case["name"] for case in cases if case["rendered"] == cases[0]["rendered"]]
    print(f"jinja2 {jinja2.__version__}: {len(cases)} templates, rendered as the unchanged one: {', '.join(same)}")
    document = {"jinja2": jinja2.__version__, "bos_token": "<s>", "eos_token": "</s>", "conversations": conversations,
                "cases": cases}
    (DATA / "template_mutations.json").write_text(json.dumps(document, indent=1) + "\n")

    conversations += [[{"role": role, "content": content} for role, content in c] for c in MORE_CONVERSATIONS]
    models = {path.stem: rendered(path.read_text(), conversations) for path in sorted((DATA / "templates").glob("*.jinja"))}
    document = {"jinja2": jinja2.__version__, "bos_token": "<s>", "eos_token": "</s>", "conversations": conversations,
                "rendered": models}
    (DATA / "model_templates.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
