// Container and process ids: they become path components and cgroup names, so they are checked
// before anything else touches them.
#pragma once

#include <string_view>

#include "base/result.h"

namespace arca::base {

// The longest id that can be a path component.
inline constexpr size_t kMaxIdLength = 255;

// Accepts what runc accepts: one or more of [A-Za-z0-9_+.-], not "." and not "..", by bytes and
// without regard to the locale; at most kMaxIdLength bytes. Fails with kInvalidArgument and a text
// of base/error_texts.h.
Result<> validateId(std::string_view id);

}  // namespace arca::base
