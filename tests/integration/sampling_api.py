"""Tests of how tokens are chosen, for api_test.py."""
import time

from api_client import PROMPT, QUESTION, client, complete, equal, model


def seed_repeats_and_another_differs():
    def sample(seed):
        return client.completions.create(model=model, prompt=PROMPT, max_tokens=24, temperature=1.0, seed=seed,
                                         extra_body={"ignore_eos": True}).choices[0].text
    equal(sample(7), sample(7))
    assert len({sample(seed) for seed in range(4)}) > 1, "four seeds give one text"


SAMPLING = {"top_p": 0.9, "top_k": 50, "min_p": 0.02, "presence_penalty": 0.3, "frequency_penalty": 0.3,
            "repetition_penalty": 1.1, "min_tokens": 12, "logit_bias": {"28": -2, "30": 1.5}, "stop_token_ids": [7]}


def sample(seed=1, max_tokens=16, prompt=PROMPT, **body):
    """A drawn answer; every field goes as it is into the body."""
    return client.completions.create(model=model, prompt=prompt, max_tokens=max_tokens, temperature=0.9, seed=seed,
                                     extra_body=body)


def greedy_ids(max_tokens=12, prompt=PROMPT, **body):
    """Token ids and digests of the most likely answer."""
    answer = complete(prompt, max_tokens, extra_body={"logit_digests": True, "ignore_eos": True, **body})
    return answer.model_extra["token_ids"], answer.model_extra["logits_digests"]


def each_sampling_field_is_taken():
    for name, value in SAMPLING.items():
        assert sample(**{name: value}).usage.completion_tokens > 0, name
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=16, top_p=0.9, presence_penalty=0.5, frequency_penalty=0.5,
        logit_bias={"28": -100}, extra_body={"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.2, "min_tokens": 3})
    assert answer.usage.completion_tokens >= 3, answer.usage


def same_seed_same_text_whatever_else_is_set():
    fields = {**SAMPLING, "ignore_eos": True}
    prompt = f"Nonce {time.monotonic_ns()}. " + "A story about a fox and a hen. " * 12  # cold, then from the cache
    texts = [sample(5, 40, prompt, **fields).choices[0].text for _ in range(4)]
    equal(texts[1:], texts[:1] * 3, "the same request again")
    assert len({sample(seed, 40, prompt, **fields).choices[0].text for seed in range(4)}) > 1, "four seeds, one text"


def cuts_to_one_token_are_greedy():
    greedy = complete(max_tokens=16, extra_body={"ignore_eos": True}).choices[0].text
    for cut in ({"top_k": 1}, {"top_p": 1e-6}, {"top_p": 0}, {"min_p": 1}):
        equal(sample(ignore_eos=True, **cut).choices[0].text, greedy, str(cut))


def logit_bias_forces_and_forbids():
    ids, digests = greedy_ids(5)
    forced, forced_digests = greedy_ids(5, logit_bias={"504": 100})
    equal(forced, [504] * 5)
    equal(forced_digests[0], digests[0], "digest of the raw logits")
    without, _ = greedy_ids(5, logit_bias={str(one): -100 for one in ids})
    assert not set(without) & set(ids), (without, ids)


def penalties_break_a_repetition():
    prompt = "ha" + " ha" * 12
    ids, _ = greedy_ids(24, prompt)
    most = max(set(ids), key=ids.count)
    assert ids.count(most) > 12, f"nothing to break: {ids}"
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2, "repetition_penalty": 1.5}):
        penalised, _ = greedy_ids(24, prompt, **penalty)
        assert penalised.count(most) < ids.count(most), (penalty, penalised)
        equal(greedy_ids(24, prompt, **penalty)[0], penalised, "again")


def min_tokens_are_generated():
    ask = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 60}
    short = client.chat.completions.create(**ask)
    equal(short.choices[0].finish_reason, "stop")
    least = short.usage.completion_tokens + 8
    longer = client.chat.completions.create(**ask, extra_body={"min_tokens": least})
    assert longer.usage.completion_tokens > least or longer.choices[0].finish_reason == "length", longer.usage
    assert longer.choices[0].message.content.startswith(short.choices[0].message.content)


def stop_token_ids_end_the_answer():
    ids, _ = greedy_ids(12)
    end = ids.index(ids[3])
    answer = complete(max_tokens=12, extra_body={"stop_token_ids": [ids[3]], "ignore_eos": True})
    equal((answer.usage.completion_tokens, answer.choices[0].finish_reason), (end + 1, "stop"))
    equal(answer.choices[0].text, complete(max_tokens=end, extra_body={"ignore_eos": True}).choices[0].text, "text")


TESTS = [seed_repeats_and_another_differs, each_sampling_field_is_taken, same_seed_same_text_whatever_else_is_set,
         cuts_to_one_token_are_greedy, logit_bias_forces_and_forbids, penalties_break_a_repetition,
         min_tokens_are_generated, stop_token_ids_end_the_answer]
