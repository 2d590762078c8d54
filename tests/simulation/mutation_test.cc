// Each listed way to break the protocol is noticed.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "simulator/scenario.h"
#include "tests/simulation/mutations.h"

namespace spillway {
namespace {

constexpr uint64_t kSeeds = 1000;

// Written by a child, read by its parent: a CHECK ends the child.
struct Finding {
  uint64_t seed = 0;  // the last one begun
  char breach[512] = {};
};

class SharedFinding {
 public:
  SharedFinding()
      : finding_(static_cast<Finding*>(
            ::mmap(nullptr, sizeof(Finding), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  SharedFinding(const SharedFinding&) = delete;
  SharedFinding& operator=(const SharedFinding&) = delete;
  ~SharedFinding() { ::munmap(finding_, sizeof(Finding)); }
  Finding& get() { return *finding_; }

 private:
  Finding* finding_;
};

[[noreturn]] void search(const Mutation& mutation, Finding& finding) {
  for (finding.seed = 1; finding.seed <= kSeeds; ++finding.seed) {
    const std::unique_ptr<Interceptor> interceptor = mutation.make();
    const ScenarioResult result = run_scenario(finding.seed, *interceptor);
    if (!result.breach) continue;
    std::strncpy(finding.breach, result.breach->c_str(), sizeof finding.breach - 1);
    break;
  }
  ::_exit(0);
}

TEST(Mutation, EachIsCaughtWithinAThousandSeeds) {
  for (const Mutation& mutation : mutations()) {
    SCOPED_TRACE(mutation.name);
    SharedFinding shared;
    std::FILE* const said = std::tmpfile();
    ASSERT_NE(said, nullptr);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::dup2(::fileno(said), STDERR_FILENO);
      search(mutation, shared.get());
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    std::string caught = shared.get().breach;
    if (WIFSIGNALED(status)) {
      char text[512] = {};
      std::rewind(said);
      EXPECT_GT(std::fread(text, 1, sizeof text - 1, said), 0u);
      caught = text;
    }
    std::fclose(said);
    EXPECT_FALSE(caught.empty()) << "not noticed in " << kSeeds << " seeds";
    fmt::print("{:32} seed {:>4}: {}\n", mutation.name, shared.get().seed, caught.substr(0, caught.find('\n')));
  }
}

}  // namespace
}  // namespace spillway
