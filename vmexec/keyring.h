// The session keyring of a container, so that its processes never see the runtime's.
#pragma once

#include <string>

#include "base/result.h"

namespace arca::vmexec {

// Joins the session keyring "_ses.<container_id>", making it when it is not there, and lets later
// processes of the container find it. Source: keyctl(2); runc's use of it.
base::Result<> joinSessionKeyring(const std::string& container_id);

}  // namespace arca::vmexec
