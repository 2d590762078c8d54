"""Tests of several choices a request, echo and log-probabilities, for api_test.py."""
import json
import os
import time

import openai

from api_client import (PROMPT, QUESTION, client, complete, equal, model, post, raises, wait_all_blocks_free)

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
LONG = "The history of computing began with the abacus. " * 20


def golden(name):
    with open(os.path.join(DATA, name)) as file:
        return json.load(file)


def drawn(prompt, n=1, **fields):
    return client.completions.create(**{"model": model, "prompt": prompt, "n": n, "max_tokens": 12, "seed": 3,
                                        "temperature": 1, "extra_body": {"ignore_eos": True}, **fields})


def assembled(stream):
    """Text and finish reason of each choice of a stream of completions."""
    texts, ends = {}, {}
    for chunk in stream:
        for choice in chunk.choices:
            assert choice.index not in ends, "a choice goes on after its end"
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    return texts, ends


def top_logprobs_are_the_references():
    """float64 logits of the same model; the limit is that of bf16 arithmetic for one last position."""
    for case in golden("logits.json")["cases"]:
        reference = {token: logit - case["logsumexp"] for token, logit in case["top32"]}
        answer = complete(case["ids"] if "ids" in case else case["tokens"], 1, logprobs=20)
        logprobs = answer.choices[0].logprobs
        top = list(logprobs.top_logprobs[0].values())
        equal(top, sorted(top, reverse=True), "order")
        equal(logprobs.token_logprobs[0], top[0], "greedy takes the highest")
        best = sorted(reference.values(), reverse=True)[:20]
        assert len(top) == 20, top
        worst = max(abs(got - expected) for got, expected in zip(top, best))
        assert worst < 0.35, f"{case['name']}: {worst}"


def echoed_logprobs_give_the_references_perplexity():
    case = golden("perplexity.json")
    answer = complete(case["ids"], 1, echo=True, logprobs=1)
    logprobs = answer.choices[0].logprobs
    own = [-one for one in logprobs.token_logprobs[1:len(case["ids"])]]
    equal((len(logprobs.tokens), len(own)), (len(case["ids"]) + 1, len(case["nll"])))
    equal((logprobs.token_logprobs[0], logprobs.top_logprobs[0]), (None, None))
    difference = sum(own) / len(own) - sum(case["nll"]) / len(case["nll"])
    assert abs(difference) < 0.006, f"mean NLL differs by {difference}"
    assert max(abs(a - b) for a, b in zip(own, case["nll"])) < 1.6
    # What lm-eval asks of each token: is it the likeliest?
    greedy = [token == max(top, key=top.get) for token, top in zip(logprobs.tokens[1:], logprobs.top_logprobs[1:])]
    expected = [token == best for token, best in zip(case["ids"][1:], case["argmax_ids"])]
    agree = sum(a == b for a, b in zip(greedy, expected)) / len(expected)
    assert agree > 0.97, agree
    equal(complete(case["ids"], 1, echo=True, logprobs=1).choices[0].logprobs, logprobs, "again, with a warm cache")
    equal(answer.usage.prompt_tokens_details.cached_tokens, 0)


def echo_is_prompt_and_answer():
    plain = complete().choices[0].text
    equal(complete(echo=True).choices[0].text, PROMPT + plain)
    none = complete(max_tokens=0, echo=True)
    equal((none.choices[0].text, none.choices[0].finish_reason), (PROMPT, "length"))
    equal(none.usage.completion_tokens, 0)
    scored = complete(max_tokens=0, echo=True, logprobs=0).choices[0].logprobs
    equal("".join(scored.tokens), PROMPT)
    for offset, token in zip(scored.text_offset, scored.tokens):
        equal(PROMPT[offset:offset + len(token)], token)
    whole = complete(echo=True, logprobs=2).choices[0]
    chunks = [chunk.choices[0] for chunk in complete(echo=True, logprobs=2, stream=True)]
    equal("".join(one.text for one in chunks), whole.text)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        equal([value for one in chunks if one.logprobs for value in getattr(one.logprobs, name)],
              getattr(whole.logprobs, name), name)


def chat_logprobs_in_one_piece_and_streamed():
    ask = {"model": model, "messages": QUESTION, "max_tokens": 12, "temperature": 0, "logprobs": True,
           "top_logprobs": 3}
    answer = client.chat.completions.create(**ask)
    entries = answer.choices[0].logprobs.content
    equal(len(entries), answer.usage.completion_tokens)
    for one in entries:
        equal(bytes(one.bytes).decode(), one.token)
        equal(len(one.top_logprobs), 3)
        equal((one.top_logprobs[0].token, one.top_logprobs[0].logprob), (one.token, one.logprob), "greedy")
    streamed = [entry for chunk in client.chat.completions.create(**ask, stream=True)
                if chunk.choices[0].logprobs for entry in chunk.choices[0].logprobs.content]
    equal(streamed, entries)
    bare = client.chat.completions.create(**{**ask, "top_logprobs": None}).choices[0].logprobs.content
    equal([(one.logprob, one.top_logprobs) for one in bare], [(one.logprob, []) for one in entries])


def logprobs_know_no_temperature():
    fields = {"logprobs": 5, "extra_body": {"logit_bias": {"504": 100}, "ignore_eos": True}}
    first = drawn(PROMPT, max_tokens=1, **fields).choices[0].logprobs
    plain = complete(max_tokens=1, logprobs=5).choices[0].logprobs
    own = first.tokens[0]
    equal({token: one for token, one in first.top_logprobs[0].items() if token != own}, {
        token: one for token, one in plain.top_logprobs[0].items() if token != own})
    assert first.token_logprobs[0] < -1, "the forced token is not likely by itself"


def choices_draw_their_own_and_share_the_prompt():
    prompt = f"Nonce {time.monotonic_ns()}. " + LONG
    answer = drawn(prompt, n=4)
    equal([one.index for one in answer.choices], [0, 1, 2, 3])
    texts = [one.text for one in answer.choices]
    equal(len(set(texts)), 4, f"choices of one seed differ: {texts}")
    equal(answer.usage.completion_tokens, 48)
    equal(answer.usage.prompt_tokens, drawn(prompt).usage.prompt_tokens)
    equal(answer.usage.prompt_tokens_details.cached_tokens, 0, "the prompt is computed")
    equal(drawn(prompt).choices[0].text, texts[0], "choice 0 is the answer of n = 1")
    equal([one.text for one in drawn(prompt, n=2).choices], texts[:2], "n changes no choice")
    streamed, ends = assembled(drawn(prompt, n=4, stream=True))
    equal([streamed[index] for index in range(4)], texts)
    equal(ends, dict.fromkeys(range(4), "length"))
    chat = client.chat.completions.create(model=model, messages=QUESTION, n=3, temperature=1, seed=1, max_tokens=8)
    equal([one.index for one in chat.choices], [0, 1, 2])
    wait_all_blocks_free()


def full_blocks_of_the_prompt_are_computed_once():
    tokens = [(13 * index + time.monotonic_ns()) % 40000 + 20 for index in range(300)]
    chunks = list(drawn(tokens, n=3, stream=True))
    found = {chunk.choices[0].index: chunk.model_extra["timings"] for chunk in chunks if chunk.choices[0].finish_reason}
    for node in ("prefill_cached_tokens", "decode_cached_tokens"):  # P computes, D receives what it has not cached
        equal([found[index][node] for index in range(3)], [0, 256, 256], node)


def lists_of_prompts_are_answered_in_order():
    prompts = [PROMPT, "Two plus two is", "Once upon a time"]
    alone = [complete(prompt).choices[0].text for prompt in prompts]
    answer = complete(prompts)
    equal([one.text for one in answer.choices], alone)
    equal(answer.usage.prompt_tokens, sum(complete(prompt, 1).usage.prompt_tokens for prompt in prompts))
    ids = [post("/tokenize", {"prompt": prompt})[1]["tokens"] for prompt in prompts]
    equal([one.text for one in complete(ids).choices], alone)
    equal(assembled(complete(prompts, stream=True))[0], dict(enumerate(alone)))
    both = complete(prompts[:2], n=2, echo=True)
    equal([(one.index, one.text) for one in both.choices],
          [(2 * prompt + choice, prompts[prompt] + alone[prompt]) for prompt in range(2) for choice in range(2)])


def a_client_that_leaves_cancels_all_its_choices():
    stream = drawn("Once upon a time", n=3, max_tokens=1000, stream=True)
    next(iter(stream))
    stream.close()
    wait_all_blocks_free()


def bad_choices_name_their_field():
    bad = openai.BadRequestError
    raises(bad, 400, "n", "invalid_value", prompt="a", n=9)
    raises(bad, 400, "best_of", "unsupported", prompt="a", n=2, best_of=3)
    raises(bad, 400, "logprobs", "invalid_value", prompt="a", logprobs=21)
    raises(bad, 400, "top_logprobs", "invalid_value", messages=QUESTION, logprobs=True, top_logprobs=21)
    raises(bad, 400, "top_logprobs", "invalid_value", messages=QUESTION, top_logprobs=2)
    raises(bad, 400, "prompt", "invalid_value", prompt=["a"] * 65)
    raises(bad, 400, "prompt", "invalid_value", prompt=["a", ""])
    raises(bad, 400, "max_tokens", "invalid_value", prompt="a", max_tokens=0)


TESTS = [top_logprobs_are_the_references, echoed_logprobs_give_the_references_perplexity, echo_is_prompt_and_answer,
         chat_logprobs_in_one_piece_and_streamed, logprobs_know_no_temperature,
         choices_draw_their_own_and_share_the_prompt, full_blocks_of_the_prompt_are_computed_once,
         lists_of_prompts_are_answered_in_order, a_client_that_leaves_cancels_all_its_choices,
         bad_choices_name_their_field]
