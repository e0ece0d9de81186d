// One function a command: what the table in flags.cc points at. Each is in a file of its name.
//
// Each gives the exit code of the program, or an error that main prints; main turns an error into
// exit code 1, of exec into 255.
#pragma once

#include "base/result.h"

namespace arca::runtime {

struct Context;

base::Result<int> checkpointCommand(Context& context);
base::Result<int> createCommand(Context& context);
base::Result<int> deleteCommand(Context& context);
base::Result<int> eventsCommand(Context& context);
base::Result<int> execCommand(Context& context);
base::Result<int> featuresCommand(Context& context);
base::Result<int> helpCommand(Context& context);
base::Result<int> killCommand(Context& context);
base::Result<int> listCommand(Context& context);
base::Result<int> pauseCommand(Context& context);
base::Result<int> psCommand(Context& context);
base::Result<int> restoreCommand(Context& context);
base::Result<int> resumeCommand(Context& context);
base::Result<int> runCommand(Context& context);
base::Result<int> specCommand(Context& context);
base::Result<int> startCommand(Context& context);
base::Result<int> stateCommand(Context& context);
base::Result<int> updateCommand(Context& context);

}  // namespace arca::runtime
