// The forwarder's own /etc/resolv.conf.
#pragma once

#include <string>
#include <vector>

namespace arca::tap_forwarder {

// Makes `nameservers` (addresses) the only content of the file. What is there is overwritten and
// not replaced, as it may be a mount of its own. A file that cannot be written (a read-only root)
// is a warning in the log: the network works without.
void writeResolvConf(const std::string& path, const std::vector<std::string>& nameservers);

}  // namespace arca::tap_forwarder
