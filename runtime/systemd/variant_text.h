// Values of D-Bus properties as text, in annotations: the part of GVariant's text format that
// properties of units need. Source: GVariant Text Format (GLib's documentation).
#pragma once

#include <string_view>

#include "base/result.h"
#include "runtime/systemd/scope.h"

namespace arca::runtime::systemd {

// true, false; 'text' or "text" with backslash escapes; a number, of type int32, or double when it
// has a fraction; "uint64 5" and the like; a list of texts. kInvalidArgument for all else.
base::Result<Value> parseVariantText(std::string_view text);

}  // namespace arca::runtime::systemd
