#pragma once

#include "text/template_builtins.h"

namespace spillway {

// The filter `tojson` as transformers has it: json.dumps(value, ensure_ascii=False, indent=...), keys in their order.
// Arguments: ensure_ascii (false only), indent (0 to 16, or none).
TemplateValue template_to_json(const TemplateCall& call);

}  // namespace spillway
