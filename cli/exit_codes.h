#pragma once

namespace spillway {

// Exit codes of every subcommand; docs/operations.md says them to people.
inline constexpr int kExitFailed = 1;       // did not do what was asked
inline constexpr int kExitCannotStart = 2;  // configuration or machine: repeating it will not help
inline constexpr int kExitCutShort = 3;     // told to stop, and did so before all requests were finished
inline constexpr int kExitCrashLoop = 4;    // serve: the gateway kept crashing

}  // namespace spillway
