#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace spillway {

// Every flag, named once for all subcommands; a subcommand registers those it uses (cli/flags.cc).
struct Options {
  std::string model;               // -m, --model
  std::string host = "127.0.0.1";  // --host
  uint16_t port = 8000;            // --port
  uint32_t prefill = 1;            // --prefill: nodes started by serve
  uint32_t decode = 1;             // --decode
  uint32_t threads = 0;            // --threads of each compute process; 0: the cores, shared among the nodes of serve
  std::string isa = "auto";        // --isa
  uint32_t max_model_len = 0;      // --max-model-len; 0: what the model was trained for
  uint64_t device_memory = uint64_t{512} << 20;  // --device-memory: bytes of KV per node
  uint32_t chunk_tokens = 512;                   // --chunk-tokens
  uint32_t max_sequences = 16;                   // --max-sequences per node
  uint32_t queue_max = 64;                       // --queue-max
  std::vector<std::string> served_names;         // --served-model-name; none: the file's stem; "*": any is accepted
  std::string api_key_file;                      // --api-key-file; empty: nobody is asked for a key
  std::string tls_cert, tls_key;                 // --tls-cert, --tls-key; empty: plain HTTP
  bool insecure = false;                         // --insecure: reachable from outside without keys or TLS
  std::string cache_dir;                         // --cache-dir of PackedWeights; empty: each process packs its own
  std::string secret_file;                       // --secret-file; empty: the user's state folder
  std::vector<std::string> faults;               // --fault NAME[:N]
  std::string log_level = "info";                // --log-level

  // What serve tells its children; also by hand, to start roles one by one.
  std::string gateway_endpoint;  // --gateway: control endpoint to bind (gateway) or to join (nodes)
  std::string run_dir;           // --run-dir: sockets of this run
  std::string name;              // --name: for logs and errors
  int ready_fd = -1;             // --ready-fd: written once the process is at work; -1: nobody asks

  // One-shot commands.
  std::string bench = "engine";  // what bench measures
  uint32_t verify_tokens = 16;   // --max-tokens of verify
  std::string prompt;            // -p, --prompt
  uint32_t max_tokens = 64;      // --max-tokens
  float temperature = 0;         // --temperature
  uint64_t seed = 0;             // --seed
  bool chat = false;             // --chat: wrap the prompt in the model's chat template
  std::string format = "table";  // --format table|json
  uint32_t repetitions = 3;      // --repetitions
  bool flip_bit = false;         // --flip-bit
};

}  // namespace spillway
