#include "runtime/commands/regex_ids.h"

#include <regex.h>

#include "base/scope_exit.h"
#include "base/strings.h"
#include "runtime/state_store.h"

namespace arca::runtime {

using base::Code;
using base::fail;
using base::Result;

Result<std::vector<std::string>> matchingIds(const Context& context,
                                             const std::string& expression) {
    regex_t compiled{};
    if (::regcomp(&compiled, expression.c_str(), REG_EXTENDED | REG_NOSUB) != 0) {
        return fail(Code::kInvalidArgument,
                    "invalid regular expression \"" + base::printable(expression) + "\"");
    }
    const base::ScopeExit free_it([&] { ::regfree(&compiled); });
    ARCA_TRY(const StateStore store,
             StateStore::open(context.globals, StateStore::Missing::kAllow));
    ARCA_TRY(std::vector<std::string> ids, store.ids());
    std::erase_if(ids, [&](const std::string& id) {
        return ::regexec(&compiled, id.c_str(), 0, nullptr, 0) != 0;
    });
    return ids;
}

}  // namespace arca::runtime
