// features: what this build supports.
#include "spec/features.h"

#include "runtime/commands/commands.h"
#include "runtime/listing.h"

namespace arca::runtime {

base::Result<int> featuresCommand(Context&) {
    return printOut(spec::featuresJson());
}

}  // namespace arca::runtime
