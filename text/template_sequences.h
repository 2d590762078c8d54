#pragma once

#include "text/template_builtins.h"

namespace spillway {

// Filters that make lists of what they are given. jinja2's select and its kin give generators, of which for one no
// length can be asked: here they are lists.
TemplateValue template_list(const TemplateCall& call);   // list: the items of a sequence
TemplateValue template_pairs(const TemplateCall& call);  // items: [key, value] of each entry of a dictionary

// select, reject, selectattr and rejectattr: the items that pass a test, or (`passing` false) those that do not. The
// arguments are, by attribute, its name (one name, no path), then the test's name and its argument; without a test the
// truth decides.
enum class SelectBy : uint8_t { kItem, kAttribute };
TemplateValue select_items(const TemplateCall& call, SelectBy by, bool passing);

}  // namespace spillway
