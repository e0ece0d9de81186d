// process.rlimits, oomScoreAdj and personality.
#pragma once

#include <span>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::vmexec {

// Applies process.rlimits to the calling process. Entries before a failing one stay applied.
// Source: runtime-spec config.md, "POSIX process", `rlimits`; setrlimit(2).
base::Result<> applyRlimits(std::span<const spec::Rlimit> limits);

// Sets /proc/self/oom_score_adj, which children inherit. Stage 1's side: the file belongs to the
// host's root.
base::Result<> setOomScoreAdj(int32_t value);

// Source: personality(2). Domains LINUX and LINUX32; no flags are defined.
base::Result<> applyPersonality(const spec::Personality& personality);

}  // namespace arca::vmexec
