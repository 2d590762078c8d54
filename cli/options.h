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
  uint32_t prefill = 1;            // --prefill: nodes started by serve; 0: decode nodes colocate
  uint32_t decode = 1;             // --decode
  bool colocate = false;           // --colocate of a decode node: it computes prompts too
  uint32_t threads = 0;            // --threads of each compute process; 0: measured at its start
  uint32_t threads_max = 0;        // --threads-max: that may be chosen where --threads is 0; 0: as many as cores
  std::string cpus;                // --cpus: that this process and its children run on; empty: any
  std::string prefill_cpus;        // --prefill-cpus, --decode-cpus of serve: for the nodes of one role
  std::string decode_cpus;
  uint32_t decode_nice = 0;      // --decode-nice of serve: niceness of the decode nodes
  uint32_t prefill_threads = 0;  // --prefill-threads, --decode-threads of serve: for one role; 0: as --threads
  uint32_t decode_threads = 0;
  bool fit = false;                               // --fit: choose what is not given from the machine and the model
  std::string isa = "auto";                       // --isa
  std::string activations = "bf16";               // --activations bf16|int8: precision_of()
  uint32_t max_model_len = 0;                     // --max-model-len; 0: what the model was trained for
  uint64_t device_memory = uint64_t{512} << 20;   // --device-memory: bytes of KV per node
  std::string kv_dtype = "bf16";                  // --kv-dtype bf16|int8: precision_of()
  uint32_t chunk_tokens = 512;                    // --chunk-tokens
  uint32_t max_sequences = 16;                    // --max-sequences per node
  uint32_t growth_margin = 256;                   // --growth-margin of decode nodes, in tokens
  uint32_t queue_max = 64;                        // --queue-max
  std::vector<std::string> served_names;          // --served-model-name; none: the file's stem; "*": any is accepted
  std::string api_key_file;                       // --api-key-file; empty: nobody is asked for a key
  std::string public_prefix_file;                 // --public-prefix-file; empty: tenants share no KV blocks
  std::string tls_cert, tls_key;                  // --tls-cert, --tls-key; empty: plain HTTP
  bool insecure = false;                          // --insecure: reachable from outside without keys or TLS
  std::string cache_dir;                          // --cache-dir: weights_cache_of()
  uint64_t cache_max_bytes = uint64_t{64} << 30;  // --cache-max-bytes
  std::string secret_file;                        // --secret-file; empty: the user's state folder
  std::vector<std::string> faults;                // --fault NAME[:N]
  uint32_t drain_timeout_s = 30;                  // --drain-timeout
  double restart_delay_s = 1;                     // --restart-delay: of a child that ended; doubled each time
  double restart_delay_max_s = 30;                // --restart-delay-max
  std::string log_level = "info";                 // --log-level
  std::string log_format = "auto";                // --log-format

  // What serve tells its children; also by hand, to start roles one by one.
  // --gateway: control endpoint to bind (gateway; serve, where none is one in its run folder) or those to join (nodes)
  std::vector<std::string> gateway_endpoints;
  std::string run_dir;        // --run-dir: sockets of this run
  std::string name;           // --name: for logs and errors
  std::string status_socket;  // --status-socket: where the supervisor says what the gateway cannot see
  int ready_fd = -1;          // --ready-fd: written once the process is at work; -1: nobody asks
  int packed_fd = -1;         // --packed-fd: the packed weights, checked; -1: this process finds or packs them

  // One-shot commands.
  std::string bench = "engine";                                    // what bench measures
  std::vector<uint32_t> bench_prompts{512}, bench_generates{128};  // --prompt-tokens, --generate-tokens
  std::vector<uint32_t> bench_depths{0}, bench_batches{1, 8};      // --depth, --batch
  uint32_t verify_tokens = 16;                                     // --max-tokens of verify
  std::string prompt;                                              // -p, --prompt
  uint32_t max_tokens = 64;                                        // --max-tokens
  float temperature = 0;                                           // --temperature
  uint64_t seed = 0;                                               // --seed
  bool chat = false;             // --chat: wrap the prompt in the model's chat template
  std::string format = "table";  // --format table|json|csv
  uint32_t repetitions = 3;      // --repetitions
  bool flip_bit = false;         // --flip-bit
  std::string shell = "bash";    // whose completion
};

}  // namespace spillway
