// What state, list and ps print, byte for byte. Source: runc's output, which callers parse.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "runtime/drivers/driver.h"
#include "runtime/record.h"

namespace arca::runtime {

struct ListEntry {
    Record record;
    Status status = Status::kStopped;
    std::string owner_name;  // only `list` fills it in
};

// `state`: indented by two spaces, no newline at the end; pid 0 when stopped, no annotations when
// there are none.
std::string stateJson(const ListEntry& entry);

// `list --format json`: one line; "null" for no containers.
std::string listJson(const std::vector<ListEntry>& entries);

// `list`: columns at least 12 wide with 3 spaces between.
std::string listTable(const std::vector<ListEntry>& entries);

// `ps --format json`: "[1,2]", "null" for none; one line.
std::string pidsJson(const std::vector<pid_t>& pids);

// The header of `ps_output` and the lines whose PID is one of `pids`. Fails when there is no column
// of that name or something else than a number is in it.
base::Result<std::string> filterPs(std::string_view ps_output, const std::vector<pid_t>& pids);

// What `ps -ef` would print of these at the time `now`, in the form of procps: the header and a
// line for each. Users but root by number: their names are in the container.
std::string processTable(const std::vector<ProcessRow>& rows, time_t now);

// The name of `uid` in a passwd file's text, "#uid" when it has none.
std::string ownerName(uid_t uid, std::string_view passwd);

// Writes all of `text` to stdout; 0, or why not.
base::Result<int> printOut(std::string_view text);

}  // namespace arca::runtime
