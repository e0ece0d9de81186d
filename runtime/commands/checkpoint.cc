// checkpoint and restore: known, and refused.
#include "runtime/commands/commands.h"

namespace arca::runtime {
namespace {

base::Result<int> refuse(const char* what) {
    return base::fail(base::Code::kUnsupported,
                      std::string(what) + " is not supported: this runtime does not use CRIU");
}

}  // namespace

base::Result<int> checkpointCommand(Context&) {
    return refuse("checkpoint");
}

base::Result<int> restoreCommand(Context&) {
    return refuse("restore");
}

}  // namespace arca::runtime
