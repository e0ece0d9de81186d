// help: the same texts as --help.
#include "base/strings.h"
#include "runtime/arguments.h"
#include "runtime/commands/commands.h"
#include "runtime/context.h"
#include "runtime/listing.h"

namespace arca::runtime {

base::Result<int> helpCommand(Context& context) {
    const std::vector<std::string>& words = context.arguments.positional();
    if (words.empty()) return printOut(helpText());
    const Command* command = findCommand(words.front());
    if (command == nullptr) {
        return base::fail(base::Code::kInvalidArgument,
                          "No help topic for '" + base::printable(words.front()) + "'");
    }
    return printOut(helpText(*command));
}

}  // namespace arca::runtime
