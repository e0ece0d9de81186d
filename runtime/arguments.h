// The command line: tables of flags and commands, and the parser and help that both read them.
//
// Runs in the CLI before anything else. The tables are constant data (flags.cc), so that a command
// that needs three flags does not pay for the two hundred others.
//
// Why not CLI11: the contract is Go's (`-bundle X`, `--force=false`, `-b=X`, global flags on either
// side of the command, everything after the id of exec, kill and ps left alone). To turn that into
// what CLI11 reads, a pre-pass has to know for every word whether it is a flag and takes a value,
// and then it is the parser. Measured on one static `state`: CLI11 2.1.2 adds 0.4 ms of CPU to a
// bare process of 1.4 ms, and 0.87 MB to the program.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace arca::runtime {

struct Context;
using Handler = base::Result<int> (*)(Context&);  // the exit code

enum class FlagKind {
    kBool,  // takes a value only as --flag=VALUE
    kText,  // the last one counts
    kList,  // each one is appended; a comma is no separator
};

struct Flag {
    std::string_view name;  // without dashes
    char letter;            // one-letter alias, or 0
    FlagKind kind;
    std::string_view value;  // what to call its value in help
    std::string_view help;
};

inline constexpr int kAnyNumber = -1;

struct Command {
    std::string_view name;
    std::string_view usage;  // arguments as help shows them
    std::string_view summary;
    std::span<const Flag> flags;
    int min_arguments;
    int max_arguments;             // or kAnyNumber
    bool stops_at_first_argument;  // what follows the first argument is never a flag
    Handler run;
};

// The tables.
std::span<const Flag> globalFlags();
std::span<const Command> commands();
const Command* findCommand(std::string_view name);  // nullptr: there is none

// Flags that were given and what is left.
class Arguments {
 public:
    Arguments() = default;
    explicit Arguments(std::span<const Flag> flags) : flags_(flags), values_(flags.size()) {}

    // Each accessor takes the name of a flag of the table; any other name is a bug and aborts.
    [[nodiscard]] bool given(std::string_view name) const;
    [[nodiscard]] bool isSet(std::string_view name) const;  // kBool
    // "" when not given: no flag of ours means something different when given empty.
    [[nodiscard]] const std::string& text(std::string_view name) const;
    [[nodiscard]] const std::vector<std::string>& list(std::string_view name) const;
    [[nodiscard]] bool knows(std::string_view name) const;

    [[nodiscard]] const std::vector<std::string>& positional() const { return positional_; }

 private:
    friend class LineParser;
    [[nodiscard]] const std::vector<std::string>& valuesOf(std::string_view name) const;

    std::span<const Flag> flags_;
    std::vector<std::vector<std::string>> values_;  // in the order of flags_
    std::vector<std::string> positional_;
};

// A whole command line. What could be understood is there even when `error` is set, so that the
// error can go to the log that was asked for.
struct Line {
    std::string program;               // argv[0]
    const Command* command = nullptr;  // nullptr: none, or an unknown one
    Arguments globals;
    Arguments arguments;
    bool help = false;
    bool version = false;
    std::optional<base::Error> error;  // bad usage
};

// Words are argv. Never fails outright: see Line::error.
Line parseLine(const std::vector<std::string>& words);

// Help for the program, and for one command.
std::string helpText();
std::string helpText(const Command& command);

}  // namespace arca::runtime
