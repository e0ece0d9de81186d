// A pipe.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace arca::base {

struct Pipe {
    UniqueFd read_end, write_end;
};

// Both ends are closed at exec and lie above 2, so that a child can dup2(2) either to where its
// standard streams are.
Result<Pipe> makePipe();

}  // namespace arca::base
