"""Runs each client against one `spillway serve` and checks what the client itself reports.

usage: run_clients.py SPILLWAY MODEL ENVIRONMENTS CLIENT...
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from server import Server  # noqa: E402

CLIENT_WITHIN_S = 600
REQUESTS = 5
PROMPT_TOKENS, OUTPUT_TOKENS = 256, 32
QUESTIONS = [("What is the capital of France?", ["Paris", "Banana", "Seven", "Yesterday"], 0),
             ("How many days has a week?", ["Purple", "Seven", "Berlin", "Never"], 1),
             ("Which animal barks?", ["The stone", "The cloud", "The dog", "The number"], 2),
             ("What is the color of snow?", ["Loud", "Monday", "Twelve", "White"], 3)]


class Clients:
    def __init__(self, environments, port, folder):
        self.environments, self.folder = environments, folder
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.tokenizer = folder / "tokenizer"
        self.python("tokenizer", HERE / "make_tokenizer.py", sys.argv[2], self.tokenizer)

    def run(self, environment, program, *arguments, **variables):
        """Output of a program of an environment; fails with it when the program does."""
        command = [str(self.environments / environment / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder, text=True, capture_output=True, timeout=CLIENT_WITHIN_S,
                              env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **variables})
        if done.returncode != 0:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def python(self, environment, *arguments):
        return self.run(environment, "python", *arguments)

    def guidellm(self):
        for route in ("/v1/completions", "/v1/chat/completions"):
            report = self.folder / f"guidellm{route.replace('/', '-')}.json"
            self.run("guidellm", "guidellm", "run", "--backend",
                     f"kind=openai_http,target={self.url},model=smollm2,request_format={route}",
                     "--profile", "kind=synchronous", "--constraint", f"kind=max_requests,count={REQUESTS}",
                     "--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}",
                     "--tokenizer", f"kind=huggingface_auto,model={self.tokenizer}", "--disable-progress",
                     "--output", f"kind=json,path={report}")
            metrics = json.loads(report.read_text())["benchmarks"][0]["metrics"]
            totals = metrics["request_totals"]
            check(totals["successful"] == REQUESTS and totals["errored"] == 0, totals)
            tokens = metrics["output_token_count"]["successful"]
            check(tokens["mean"] == OUTPUT_TOKENS, tokens)
            ttft = metrics["time_to_first_token_ms"]["successful"]["median"]
            yield f"{route}, {REQUESTS} requests one by one", f"TTFT median {ttft:.0f} ms, {tokens['mean']:.0f} tokens each"

    def aiperf(self):
        # It knows tokenizers by their name in a hub's cache only.
        snapshot = self.folder / "hub/models--local--smollm2"
        revision = "0" * 40
        shutil.copytree(self.tokenizer, snapshot / "snapshots" / revision)
        (snapshot / "refs").mkdir()
        (snapshot / "refs/main").write_text(revision)
        for kind in ("chat", "completions"):
            report = self.folder / f"aiperf-{kind}"
            self.run("aiperf", "aiperf", "profile", "--model", "smollm2", "--url", self.url, "--endpoint-type", kind,
                     "--streaming", "--tokenizer", "local/smollm2", "--isl", PROMPT_TOKENS, "--osl", OUTPUT_TOKENS,
                     "--request-count", REQUESTS, "--concurrency", 2, "--extra-inputs", "ignore_eos:true",
                     "--ui", "none", "--no-gpu-telemetry", "--artifact-dir", report, HF_HOME=str(self.folder))
            figures = json.loads((report / "profile_export_aiperf.json").read_text())
            check(figures["request_count"]["avg"] == REQUESTS, figures["request_count"])
            check(not figures["error_summary"], figures["error_summary"])
            tokens = figures["usage_completion_tokens"]["avg"]
            check(tokens == OUTPUT_TOKENS, tokens)
            check((report / "server_metrics_export.json").exists(), "it scraped /metrics")
            ttft = figures["time_to_first_token"]["p50"]
            yield f"{kind}, {REQUESTS} requests, 2 at once", f"TTFT p50 {ttft:.0f} ms, {tokens:.0f} tokens each, /metrics scraped"

    def vllm(self):
        report = self.folder / "vllm"
        common = ["--host", "127.0.0.1", "--port", self.port, "--model", "smollm2", "--tokenizer", self.tokenizer,
                  "--dataset-name", "random", "--random-input-len", PROMPT_TOKENS, "--random-output-len", OUTPUT_TOKENS,
                  "--random-range-ratio", 0, "--num-prompts", REQUESTS, "--ignore-eos", "--temperature", 0,
                  "--request-rate", 2, "--goodput", "ttft:1000", "tpot:50", "--save-result", "--result-dir", report]
        for backend, endpoint, more in (("openai", "/v1/completions", ["--logprobs", 1]),
                                        ("openai-chat", "/v1/chat/completions", [])):
            self.python("vllm", HERE / "vllm_bench_serve.py", "--backend", backend, "--endpoint", endpoint,
                        "--result-filename", f"{backend}.json", *common, *more)
            figures = json.loads((report / f"{backend}.json").read_text())
            check(figures["completed"] == REQUESTS and figures["failed"] == 0, figures)
            check(figures["total_output_tokens"] == REQUESTS * OUTPUT_TOKENS, figures["total_output_tokens"])
            yield (f"{backend}, {REQUESTS} requests at 2 a second",
                   f"TTFT median {figures['median_ttft_ms']:.0f} ms, TPOT median {figures['median_tpot_ms']:.1f} ms, "
                   f"{figures['total_output_tokens']} tokens")

    def lm_eval(self):
        tasks = self.folder / "tasks"
        tasks.mkdir()
        documents = tasks / "questions.jsonl"
        documents.write_text("".join(json.dumps({"question": question, "choices": choices, "answer": answer}) + "\n"
                                     for question, choices, answer in QUESTIONS))
        common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(documents)}},
                  "test_split": "test", "doc_to_text": "Question: {{question}}\nAnswer:"}
        choice = {**common, "task": "choice", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}",
                  "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}]}
        words = {**common, "task": "words", "output_type": "generate_until", "doc_to_target": "{{choices[answer]}}",
                 "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16}, "metric_list": [{"metric": "exact_match"}]}
        for task in (choice, words):  # JSON is YAML
            (tasks / f"{task['task']}.yaml").write_text(json.dumps(task))
        report = self.folder / "lm-eval"
        self.run("lm-eval", "lm_eval", "run", "--model", "local-completions", "--model_args",
                 f"model=smollm2,base_url={self.url}/v1/completions,tokenizer={self.tokenizer},"
                 "tokenizer_backend=huggingface,num_concurrent=2,max_retries=1", "--batch_size", 2,
                 "--tasks", "choice", "words", "--include_path", tasks, "--output_path", report)
        results = json.loads(next(report.rglob("results*.json")).read_text())["results"]
        accuracy = results["choice"]["acc,none"]
        check(accuracy == 1.0, f"accuracy {accuracy}: answers that no model mistakes")
        yield (f"local-completions, {len(QUESTIONS)} questions of 4 choices (echo, logprobs), and as text (stop)",
               f"accuracy {accuracy}, exact words {results['words']['exact_match,none']}")


def check(holds, what):
    if not holds:
        sys.exit(f"clients: not as it should be: {what}")


def main():
    spillway, model, environments, names = *map(os.path.abspath, sys.argv[1:4]), sys.argv[4:]
    sys.argv[2] = model
    with tempfile.TemporaryDirectory() as folder, \
            Server(spillway, model, "--served-model-name", "smollm2") as server:
        clients = Clients(pathlib.Path(environments), server.port, pathlib.Path(folder))
        print("| client | asked | answered | took |\n|---|---|---|---|")
        for name in names:
            start = time.monotonic()
            for asked, answered in getattr(clients, name.replace("-", "_"))():
                print(f"| {name} | {asked} | {answered} | {time.monotonic() - start:.0f} s |", flush=True)
                start = time.monotonic()


if __name__ == "__main__":
    main()
