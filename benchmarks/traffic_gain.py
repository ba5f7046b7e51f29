"""docs/choosing.md on one model, from recording to serving: the gain that was predicted beside the gain measured.

    OMP_NUM_THREADS=1 python -m benchmarks.traffic_gain --out gain

SmolLM2-135M answers passages of the package's texts, steered towards the passage by today's backend; the calls are
recorded, measured and chosen for by the commands of the chapter, and the same prompts are answered again by today's
backend and by the policy in turns. ``choose`` predicts the time of attention alone and measured are whole answers, so
what must agree is the time saved for every 1,000 requests. ``--tiny`` takes a small random model: it shows that the
loop closes, and its figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

STRENGTH = 0.5
# Characters of the shortest and the longest passage: some 150 and 750 tokens.
SHORTEST, LONGEST = 600, 3200
# Share of the time that the built-in rule may serve before the prediction, which has today's backend there, is of
# other work.
MOST_UNKNOWN = 0.1
QUESTION = "\n\nIn one sentence, what happens here?\n"


def passages(requests):
    """One for each request, from ``SHORTEST`` to ``LONGEST``, of the texts that the package carries."""
    from rls_bench.evaluation import texts

    text = "\n\n".join(map(texts.read, ("alice", "moby_dick", "pride_and_prejudice")))
    lengths = [SHORTEST + (LONGEST - SHORTEST) * number // max(1, requests - 1) for number in range(requests)]
    starts = [(250 * number) % (len(text) - LONGEST) for number in range(requests)]
    return [text[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def smollm2(requests):
    """SmolLM2-135M, and for each request ids [1, P] and a bias [P] that is 1 on the passage."""
    import torch

    from rls_bench.evaluation import smollm2 as weights

    model, tokenizer = weights.load(task="the gain of a policy")
    question = tokenizer(QUESTION).input_ids
    prompts = []
    for text in passages(requests):
        passage = tokenizer(text).input_ids
        bias = torch.tensor([1.0] * len(passage) + [0.0] * len(question))
        prompts.append((torch.tensor([passage + question]), bias))
    return model, prompts


def tiny(requests):
    """The same of a random model of two layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    lengths = [24 + 8 * number for number in range(requests)]
    return model, [(torch.randint(3, 64, (1, length)), torch.ones(length)) for length in lengths]


def answer(model, prompt, tokens, backend):
    """``tokens`` more of one prompt, steered by ``backend``."""
    import torch

    from rls_bench.integrations.transformers import steer

    ids, bias = prompt
    # Always as many tokens, or two backends' answers would not be the same work.
    options = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    with steer(model, bias=bias, strength=STRENGTH, backend=backend):
        model.generate(ids, attention_mask=torch.ones_like(ids), **options)


def in_turns(model, prompts, tokens, turns, today):
    """Nanoseconds for every 1,000 requests, a pair a turn: by ``today``, and by the policy that ``auto`` finds."""
    found = []
    # The first turn warms up.
    for turn in range(turns + 1):
        taken_ns = {today: 0, "auto": 0}
        for place, prompt in enumerate(prompts):
            for backend in (today, "auto") if (turn + place) % 2 else ("auto", today):
                start_ns = time.perf_counter_ns()
                answer(model, prompt, tokens, backend)
                taken_ns[backend] += time.perf_counter_ns() - start_ns
        found.append(tuple(1000 / len(prompts) * taken_ns[backend] for backend in (today, "auto")))
    return found[1:]


def saved(pairs):
    """The median of what the second of each pair takes less than the first, and its 95 % bootstrap interval."""
    import numpy as np
    from scipy import stats

    less = np.array([before - after for before, after in pairs])
    interval = stats.bootstrap((less,), np.median, method="percentile", rng=0).confidence_interval
    return float(np.median(less)), float(interval.low), float(interval.high)


def predicted(chosen, today):
    """Nanoseconds for every 1,000 requests, as ``choose --json`` has them: today's, the policy's, and ``saved``."""
    totals = {total["name"]: total for total in chosen["machines"][0]["workload"]["totals"]}
    policy = totals["policy"]["over_today"]
    if totals[today]["time_ns"] is None or policy is None or policy["low"] is None:
        raise SystemExit(f"no prediction: {chosen['machines'][0]['workload']['verdict']}")
    base = totals[today]["time_ns"]["median"]
    # What both have in common cancels, so the ratio is surer than either time.
    less = tuple(base * (1 - policy[end]) for end in ("median", "high", "low"))
    return base, base * policy["median"], less


def taken_by(calls, policy):
    """Share of estimated time by backend that ``auto`` takes, and the share of which the policy does not speak."""
    from rls_bench.policy import lookup
    from rls_bench.traffic.estimate import seconds

    shares, unknown = {}, 0.0
    every = sum(number * seconds(problem) for problem, number in calls.items())
    for problem, number in calls.items():
        choice = lookup.explain(problem, policy)
        share = number * seconds(problem) / every
        shares[choice.backend] = shares.get(choice.backend, 0.0) + share
        unknown += share if choice.policy is None else 0.0
    return shares, unknown


def run(*words):
    """Run one command of ours, and return what it prints."""
    print("rls-bench", *words, flush=True)
    command = [sys.executable, "-m", "rls_bench", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main(arguments=None):
    """Go round the loop once and print both gains."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic_gain")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trace, the records and the policy")
    parser.add_argument("--today", default="sdpa-cpu", help="the backend that serves today")
    parser.add_argument("--against", nargs="+", default=["cpu"], help="backends to choose from beside it")
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=32, help="tokens of each answer")
    parser.add_argument("--most", type=int, default=12, help="problems that stand for all")
    parser.add_argument("--launches", type=int, default=10)
    parser.add_argument("--budget", type=int, default=600, help="seconds of measuring")
    parser.add_argument("--turns", type=int, default=8, help="how often all prompts are answered by each")
    parser.add_argument("--tiny", action="store_true", help="a small random model: is the loop closed?")
    told = parser.parse_args(arguments)
    import rls_bench
    from rls_bench.cli.traffic_time import duration
    from rls_bench.policy import lookup
    from rls_bench.traffic import trace

    told.out.mkdir(parents=True, exist_ok=True)
    files = [told.out / name for name in ("trace.jsonl", "traffic.toml", "measured.jsonl", "policy.json")]
    if known := [path for path in files if path.exists()]:
        raise SystemExit(f"--out: wanted a folder without {known[0].name}, for a run adds to what is there")
    recorded, workload, measured, policy = files
    model, prompts = (tiny if told.tiny else smollm2)(told.requests)

    with rls_bench.record_workload(recorded):
        for prompt in prompts:
            answer(model, prompt, told.tokens, told.today)
    run("workload", recorded, "--most", told.most, "--out", workload)
    backends = [word for name in (told.today, *told.against) for word in ("--backend", name)]
    how = ("--launches", told.launches, "--budget", told.budget)
    print(run("run", "--workload", workload, *backends, *how, "--out", measured))
    chosen = json.loads(
        run(
            *("choose", measured, "--workload", workload, "--today", told.today, "--policy", policy, "--json"),
        )
    )
    base, by_policy, less = predicted(chosen, told.today)

    os.environ[lookup.VARIABLE] = str(policy)
    if not lookup.is_found(policy):
        raise SystemExit(f"{policy} was made for another machine or other settings than this process has")
    pairs = in_turns(model, prompts, told.tokens, told.turns, told.today)
    found, low, high = saved(pairs)
    middle = [sorted(side)[len(pairs) // 2] for side in zip(*pairs, strict=True)]

    print(f"{len(prompts)} prompts of {min(map(length, prompts))} to {max(map(length, prompts))} tokens,", end=" ")
    print(f"{told.tokens} tokens each; {told.turns} turns. Per 1,000 requests:")
    print(f"{'':26}{'today, ' + told.today:>18}{'policy':>12}{'saved':>12}  95 %")
    for name, row, gain in (
        ("predicted, attention", (base, by_policy), less),
        ("measured, whole answers", middle, (found, low, high)),
    ):
        print(f"{name:26}{duration(row[0]):>18}{duration(row[1]):>12}{signed(gain[0]):>12}", end="  ")
        print(f"{signed(gain[1])} to {signed(gain[2])}")
    shares, unknown = taken_by(trace.read(recorded).calls, policy)
    served = ", ".join(f"{name} for {share:.0%}" for name, share in shares.items())
    print(f"by estimated time auto takes {served}; for {unknown:.0%} the policy is silent and the built-in rule serves")
    if unknown > MOST_UNKNOWN:
        print("nothing to compare: where the policy is silent, choose reckons with today's backend")
    else:
        agree = low <= less[2] and less[1] <= high
        print(f"the two intervals {'meet' if agree else 'do not meet'}")
    print(f"choose says: {chosen['machines'][0]['workload']['verdict']}")
    return 0


def length(prompt):
    """Tokens of one prompt."""
    return prompt[0].shape[1]


def signed(nanoseconds):
    """As ``duration`` prints it, of what may be a loss."""
    from rls_bench.cli.traffic_time import duration

    return duration(nanoseconds) if nanoseconds >= 0 else f"−{duration(-nanoseconds)}"


if __name__ == "__main__":
    sys.exit(main())
