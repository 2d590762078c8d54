#include "cli/public_prefix_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/check.h"
#include "gateway/public_prefixes.h"
#include "tests/gateway/byte_model.h"

namespace spillway {
namespace {

class PublicPrefixFile : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/spillway-public-XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& text) const {
    const std::string path = folder_ + "/prefixes.jsonl";
    std::ofstream(path) << text;
    return path;
  }
  std::string why_refused(const std::string& path) const {
    try {
      static_cast<void>(read_public_prefixes(path, model_));
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  }
  ByteTokenizer tokenizer_;
  ServedModel model_ = make_byte_model(tokenizer_);
  std::string folder_;
};

TEST_F(PublicPrefixFile, EachLineIsAPrefixAndCommentsAreNone) {
  const auto prefixes = read_public_prefixes(write("# ours\n\n{\"prompt\":\"ab\"}\r\n {\"prompt\":[7]}\n"
                                                   R"({"messages":[{"role":"system","content":"x"}]})"),
                                             model_);
  ASSERT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(prefixes[0], (std::vector<TokenId>{'a', 'b'}));
  EXPECT_EQ(prefixes[1], (std::vector<TokenId>{7}));
  EXPECT_EQ(prefixes[2].front(), ByteTokenizer::kStart);
}

TEST_F(PublicPrefixFile, ABadLineIsNamedWithItsCauseAndRemedy) {
  for (const std::string line : {"nonsense", "{}", R"({"prompt":""})", R"({"prompt":[999]})", R"({"prompts":"a"})",
                                 R"({"messages":[{"role":"user"}]})"}) {
    const std::string path = write("# one\n{\"prompt\":\"a\"}\n" + line + "\n");
    const std::string why = why_refused(path);
    EXPECT_NE(why.find(path + ", line 3: "), std::string::npos) << why;
    EXPECT_NE(why.find("A line is {\"messages\""), std::string::npos) << why;
  }
}

TEST_F(PublicPrefixFile, ItsBoundsAreEnforced) {
  const std::string line = "{\"prompt\":\"a\"}\n";
  std::string lines;
  for (size_t count = 0; count < kPublicPrefixesMax; ++count) lines += line;
  EXPECT_EQ(read_public_prefixes(write(lines), model_).size(), kPublicPrefixesMax);
  EXPECT_NE(why_refused(write(lines + line)).find("line 65: it is one prefix too many, at most 64"), std::string::npos);
  EXPECT_EQ(
      read_public_prefixes(write(line + std::string(kPublicPrefixFileBytesMax - line.size(), '#')), model_).size(), 1u);
  EXPECT_NE(why_refused(write(line + std::string(kPublicPrefixFileBytesMax, '#'))).find("larger than 1048576 bytes"),
            std::string::npos);
}

TEST_F(PublicPrefixFile, OneThatIsEmptyAbsentOrNoFileIsRefusedAndNotWaitedFor) {
  EXPECT_NE(why_refused(write("# nothing yet\n")).find("has no prefixes"), std::string::npos);
  EXPECT_NE(why_refused(folder_ + "/absent").find("cannot open"), std::string::npos);
  EXPECT_NE(why_refused(folder_).find("cannot read"), std::string::npos);
  const std::string fifo = folder_ + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(why_refused(fifo).find("has no prefixes"), std::string::npos);
}

}  // namespace
}  // namespace spillway
