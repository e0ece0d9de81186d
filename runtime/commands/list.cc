// list: the containers of a state root.
#include <unistd.h>

#include "base/files.h"
#include "base/log.h"
#include "base/strings.h"
#include "runtime/commands/commands.h"
#include "runtime/lifecycle.h"
#include "runtime/listing.h"

namespace arca::runtime {
namespace {

using base::Code;
using base::fail;
using base::Result;

Result<ListEntry> entryOf(const Context& context, const std::string& id) {
    ARCA_TRY(Container container, openContainer(context, id, Lock::kNone));
    ARCA_TRY(const Status status, container.status());
    return ListEntry{std::move(container.record), status, {}};
}

// /etc/passwd by hand: the C library's look-up does not work in a static program.
void nameOwners(std::vector<ListEntry>& entries) {
    if (entries.empty()) return;
    const auto passwd = base::readFile("/etc/passwd");
    for (ListEntry& entry : entries) {
        entry.owner_name = ownerName(entry.record.owner, passwd ? *passwd : std::string());
    }
}

}  // namespace

Result<int> listCommand(Context& context) {
    const Arguments& arguments = context.arguments;
    const std::string& format = arguments.text("format");
    if (!format.empty() && format != "table" && format != "json") {
        return fail(Code::kInvalidArgument, "invalid format option");
    }
    ARCA_TRY(const StateStore store,
             StateStore::open(context.globals, StateStore::Missing::kAllow));
    if (!store.exists() && context.globals.root_given) {
        return base::failErrno("open " + context.globals.root, ENOENT);
    }
    ARCA_TRY(const std::vector<std::string> ids, store.ids());
    std::vector<ListEntry> entries;
    for (const std::string& id : ids) {
        auto entry = entryOf(context, id);
        if (entry) {
            entries.push_back(std::move(*entry));
        } else if (entry.error().code() != Code::kNotFound) {
            // One broken container must not hide the others.
            (void)base::writeAll(
                STDERR_FILENO,
                "load container " + id + ": " + base::printable(entry.error().message()) + "\n");
        }
    }
    if (arguments.isSet("quiet")) {
        std::string out;
        for (const ListEntry& entry : entries) out += entry.record.id + "\n";
        return printOut(out);
    }
    nameOwners(entries);
    return printOut(format == "json" ? listJson(entries) : listTable(entries));
}

}  // namespace arca::runtime
