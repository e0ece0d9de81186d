// Which hooks of a bundle run on the host, and which go to the guest with the configuration.
//
// Without a word to the contrary prestart, createRuntime, poststart and poststop are the host's;
// createContainer and startContainer are run where the container is, by the agent's vmexec.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "spec/spec.h"

namespace arca::runtime {

// The hooks that commands run themselves. In a sandbox with a guest they are taken out of `hooks`,
// which then has what the guest's agent runs: the stages `in_guest`, and the two above. The agent
// of the local sandbox gets them all, and asks the command for those that it has to run.
//
// kUnsupported names a service among them: only the agent of a guest runs services.
base::Result<spec::Hooks> takeHostHooks(const std::string& sandbox,
                                        const std::vector<std::string>& in_guest,
                                        spec::Hooks& hooks);

// Stages in a comma-separated list. kInvalidArgument names one that there is not.
base::Result<std::vector<std::string>> parseStages(const std::string& text);
base::Result<> checkStage(const std::string& stage);

}  // namespace arca::runtime
