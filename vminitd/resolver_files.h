// ConfigureDns and ConfigureHosts: etc/resolv.conf and etc/hosts below a folder.
//
// Worker threads; nothing here touches the agent's state.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "vminitd/guest_path.h"

namespace arca::vminitd {

struct DnsConfig {
    std::vector<std::string> nameservers{};
    std::optional<std::string> domain{};
    std::vector<std::string> search_domains{};
    std::vector<std::string> options{};
};
// The text of resolv.conf(5). kInvalidArgument names the value that is empty or would be more than
// one word there.
base::Result<std::string> resolvConf(const DnsConfig& config);

struct HostsEntry {
    std::string address{};
    std::vector<std::string> names{};
    std::optional<std::string> comment{};
};
// The text of hosts(5), with `comment` as its first line. kInvalidArgument for an address or a name
// that is no word, and for a comment that is no line.
base::Result<std::string> hostsText(const std::vector<HostsEntry>& entries,
                                    const std::optional<std::string>& comment);

// Replaces `location`/etc/`name` as a whole (0644), making etc when it is missing. Symlinks are
// followed inside `location` only, and only up to etc: `name` itself is replaced.
base::Result<> replaceEtcFile(const GuestPath& location, const std::string& name,
                              const std::string& text);

}  // namespace arca::vminitd
