#pragma once

#include <string>

#include "common/ids.h"
#include "formats/gguf.h"
#include "model/model_config.h"
#include "transfer/messages.h"

namespace spillway {

BootId draw_boot_id();

// The gateway's Hello for a model file with this digest: it computes nothing, but it pairs only nodes of its own model.
// Throws SetupError.
Hello gateway_hello(const GgufFile& file, const FileDigest& digest, const std::string& name, BootId boot);

}  // namespace spillway
