#include "runtime/arguments.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "base/strings.h"
#include "spec/version.h"

namespace arca::runtime {
namespace {

constexpr std::string_view kProgram = "arca-runtime";
constexpr size_t kNotFound = static_cast<size_t>(-1);

size_t indexOf(std::span<const Flag> flags, std::string_view name) {
    for (size_t i = 0; i < flags.size(); ++i) {
        const bool by_letter = name.size() == 1 && flags[i].letter == name.front();
        if (flags[i].name == name || by_letter) return i;
    }
    return kNotFound;
}

// Go's strconv.ParseBool, which is what callers' scripts were written for.
std::optional<bool> parseBool(std::string_view text) {
    constexpr std::string_view kTrue[] = {"1", "t", "T", "TRUE", "true", "True"};
    constexpr std::string_view kFalse[] = {"0", "f", "F", "FALSE", "false", "False"};
    if (std::find(std::begin(kTrue), std::end(kTrue), text) != std::end(kTrue)) return true;
    if (std::find(std::begin(kFalse), std::end(kFalse), text) != std::end(kFalse)) return false;
    return std::nullopt;
}

bool isFlag(std::string_view word) {
    return word.size() > 1 && word.front() == '-';
}

std::string leftColumn(const Flag& flag) {
    std::string out = "--" + std::string(flag.name);
    if (!flag.value.empty()) out += " " + std::string(flag.value);
    if (flag.letter != 0) {
        out += std::string(", -") + flag.letter;
        if (!flag.value.empty()) out += " " + std::string(flag.value);
    }
    return out;
}

struct Row {
    std::string left;
    std::string_view right;
};

std::string table(const std::vector<Row>& rows) {
    size_t width = 0;
    for (const Row& row : rows) width = std::max(width, row.left.size());
    std::string out;
    for (const Row& row : rows) {
        out += "   " + row.left + std::string(width - row.left.size() + 2, ' ');
        out += std::string(row.right) + "\n";
    }
    return out;
}

std::string flagTable(std::span<const Flag> flags) {
    std::vector<Row> rows;
    for (const Flag& flag : flags) rows.push_back({leftColumn(flag), flag.help});
    return table(rows);
}

}  // namespace

const std::vector<std::string>& Arguments::valuesOf(std::string_view name) const {
    for (size_t i = 0; i < flags_.size(); ++i) {
        if (flags_[i].name == name) return values_[i];
    }
    (void)std::fprintf(stderr, "no such flag in the table: %.*s\n", static_cast<int>(name.size()),
                       name.data());
    std::abort();
}

bool Arguments::knows(std::string_view name) const {
    return indexOf(flags_, name) != kNotFound;
}

bool Arguments::given(std::string_view name) const {
    return !valuesOf(name).empty();
}

bool Arguments::isSet(std::string_view name) const {
    const auto& values = valuesOf(name);
    return !values.empty() && values.back() == "true";
}

const std::string& Arguments::text(std::string_view name) const {
    static const std::string none;
    const auto& values = valuesOf(name);
    return values.empty() ? none : values.back();
}

const std::vector<std::string>& Arguments::list(std::string_view name) const {
    return valuesOf(name);
}

class LineParser {
 public:
    explicit LineParser(const std::vector<std::string>& words) : words_(words) {
        line_.globals = Arguments(globalFlags());
    }

    Line parse() {
        line_.program = words_.empty() ? std::string(kProgram) : words_.front();
        next_ = 1;
        bool flags_end = false;
        while (next_ < words_.size() && !line_.error) {
            const std::string& word = words_[next_++];
            if (!flags_end && word == "--") {
                flags_end = true;
            } else if (!flags_end && isFlag(word)) {
                takeFlag(word);
            } else if (line_.command == nullptr) {
                takeCommand(word);
            } else {
                line_.arguments.positional_.push_back(word);
                if (line_.command->stops_at_first_argument) flags_end = true;
            }
        }
        if (!line_.error && !line_.help && !line_.version) checkCounts();
        return std::move(line_);
    }

 private:
    void usageError(std::string message) {
        line_.error.emplace(base::Code::kInvalidArgument, std::move(message));
    }

    void takeCommand(const std::string& word) {
        line_.command = findCommand(word);
        if (line_.command == nullptr) {
            usageError("No help topic for '" + base::printable(word) + "'");
            return;
        }
        line_.arguments = Arguments(line_.command->flags);
    }

    void takeFlag(std::string_view word) {
        word.remove_prefix(word.substr(0, 2) == "--" ? 2 : 1);
        const size_t equals = word.find('=');
        const std::string_view name = word.substr(0, equals);
        Arguments* where = &line_.arguments;
        size_t index = indexOf(where->flags_, name);
        if (index == kNotFound) {
            where = &line_.globals;
            index = indexOf(where->flags_, name);
        }
        if (index == kNotFound) {
            usageError("flag provided but not defined: -" + base::printable(name));
            return;
        }
        std::optional<std::string_view> value;
        if (equals != std::string_view::npos) value = word.substr(equals + 1);
        store(where->flags_[index], where->values_[index], value);
    }

    void store(const Flag& flag, std::vector<std::string>& values,
               std::optional<std::string_view> value) {
        if (flag.kind == FlagKind::kBool) {
            const auto parsed = value ? parseBool(*value) : std::optional(true);
            if (!parsed) {
                usageError("invalid boolean value \"" + base::printable(*value) + "\" for -" +
                           std::string(flag.name));
                return;
            }
            values.assign(1, *parsed ? "true" : "false");
            if (flag.name == "help") line_.help = *parsed;
            if (flag.name == "version") line_.version = *parsed;
            return;
        }
        if (!value) {
            if (next_ == words_.size()) {
                usageError("flag needs an argument: -" + std::string(flag.name));
                return;
            }
            value = words_[next_++];
        }
        if (flag.kind == FlagKind::kText) values.clear();
        values.emplace_back(*value);
    }

    void checkCounts() {
        if (line_.command == nullptr) {
            usageError("a command is needed");
            return;
        }
        const Command& command = *line_.command;
        const auto count = static_cast<int>(line_.arguments.positional_.size());
        const bool exact = command.min_arguments == command.max_arguments;
        std::string wanted;
        if (count < command.min_arguments) {
            wanted = (exact ? "exactly " : "a minimum of ") + std::to_string(command.min_arguments);
        } else if (command.max_arguments != kAnyNumber && count > command.max_arguments) {
            wanted = (exact ? "exactly " : "a maximum of ") + std::to_string(command.max_arguments);
        }
        if (wanted.empty()) return;
        usageError(line_.program + ": \"" + std::string(command.name) + "\" requires " + wanted +
                   " argument(s)");
    }

    const std::vector<std::string>& words_;
    size_t next_ = 0;
    Line line_;
};

Line parseLine(const std::vector<std::string>& words) {
    return LineParser(words).parse();
}

const Command* findCommand(std::string_view name) {
    for (const Command& command : commands()) {
        if (command.name == name) return &command;
    }
    return nullptr;
}

std::string helpText() {
    const std::string program(kProgram);
    std::string out = "NAME:\n   " + program + " - runs OCI containers, here or in a VM\n\n" +
                      "USAGE:\n   " + program +
                      " [global flags] COMMAND [command flags] [arguments...]\n\n" +
                      "VERSION:\n   " + spec::kProjectVersion + "\n\nCOMMANDS:\n";
    std::vector<Row> rows;
    for (const Command& command : commands()) {
        rows.push_back({std::string(command.name), command.summary});
    }
    return out + table(rows) + "\nGLOBAL FLAGS:\n" + flagTable(globalFlags());
}

std::string helpText(const Command& command) {
    const std::string name = std::string(kProgram) + " " + std::string(command.name);
    std::string out = "NAME:\n   " + name + " - " + std::string(command.summary) +
                      "\n\nUSAGE:\n   " + name + (command.flags.empty() ? "" : " [flags]") +
                      (command.usage.empty() ? "" : " ") + std::string(command.usage) + "\n";
    if (!command.flags.empty()) out += "\nFLAGS:\n" + flagTable(command.flags);
    return out;
}

}  // namespace arca::runtime
