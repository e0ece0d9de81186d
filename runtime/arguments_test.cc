#include "runtime/arguments.h"

#include <boost/test/unit_test.hpp>
#include <set>

namespace arca::runtime {
namespace {

Line parse(std::vector<std::string> words) {
    words.insert(words.begin(), "arca-runtime");
    return parseLine(words);
}

std::string errorOf(const std::vector<std::string>& words) {
    const Line line = parse(words);
    return line.error ? line.error->message() : "";
}

BOOST_AUTO_TEST_SUITE(arguments)

BOOST_AUTO_TEST_CASE(every_spelling_of_a_value) {
    const std::vector<std::vector<std::string>> spellings = {
        {"--bundle", "/b"}, {"--bundle=/b"}, {"-bundle", "/b"}, {"-bundle=/b"},
        {"-b", "/b"},       {"-b=/b"},       {"--b", "/b"},     {"--b=/b"}};
    for (const auto& spelling : spellings) {
        for (const bool before : {true, false}) {
            std::vector<std::string> words{"create"};
            if (!before) words.push_back("c1");
            words.insert(words.end(), spelling.begin(), spelling.end());
            if (before) words.push_back("c1");
            const Line line = parse(words);
            BOOST_TEST_CONTEXT(spelling.front()) {
                BOOST_TEST(!line.error);
                BOOST_TEST(line.arguments.text("bundle") == "/b");
                BOOST_TEST(line.arguments.positional().size() == 1U);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(booleans_take_a_value_only_with_an_equals_sign) {
    BOOST_TEST(parse({"delete", "--force", "c"}).arguments.isSet("force"));
    BOOST_TEST(parse({"delete", "-f", "c"}).arguments.isSet("force"));
    BOOST_TEST(parse({"delete", "c", "-force=T"}).arguments.isSet("force"));
    BOOST_TEST(!parse({"delete", "--force=false", "c"}).arguments.isSet("force"));
    BOOST_TEST(!parse({"delete", "--force", "--force=0", "c"}).arguments.isSet("force"));
    BOOST_TEST(errorOf({"delete", "--force=maybe", "c"}) ==
               "invalid boolean value \"maybe\" for -force");
    BOOST_TEST(errorOf({"delete", "--force", "true", "c"}) ==
               "arca-runtime: \"delete\" requires exactly 1 argument(s)");
}

BOOST_AUTO_TEST_CASE(global_flags_stand_on_either_side) {
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"--root", "/r", "--log-format=json", "state", "c"},
          {"state", "-root=/r", "c", "--log-format", "json"}}) {
        const Line line = parse(words);
        BOOST_TEST(!line.error);
        BOOST_TEST(line.globals.text("root") == "/r");
        BOOST_TEST(line.globals.text("log-format") == "json");
        BOOST_TEST(line.arguments.positional().front() == "c");
    }
}

BOOST_AUTO_TEST_CASE(nothing_is_a_flag_after_the_id_of_exec_kill_and_ps) {
    const Line exec = parse({"exec", "-t", "c", "sh", "-c", "echo --force", "--root"});
    BOOST_TEST(!exec.error);
    BOOST_TEST(exec.arguments.isSet("tty"));
    BOOST_TEST(exec.arguments.positional().size() == 5U);
    const Line ps = parse({"ps", "-f", "json", "c", "-ef"});
    BOOST_TEST(ps.arguments.text("format") == "json");
    BOOST_TEST(ps.arguments.positional().back() == "-ef");
    const Line kill = parse({"kill", "c", "-9"});
    BOOST_TEST(kill.arguments.positional().back() == "-9");
    BOOST_TEST(errorOf({"kill", "c", "--", "-1"}) ==
               "arca-runtime: \"kill\" requires a maximum of 2 argument(s)");
}

BOOST_AUTO_TEST_CASE(two_dashes_end_the_flags) {
    const Line line = parse({"create", "--", "-x"});
    BOOST_TEST(!line.error);
    BOOST_TEST(line.arguments.positional().front() == "-x");
}

BOOST_AUTO_TEST_CASE(values_may_look_like_flags_and_lists_keep_commas) {
    const Line update = parse({"update", "--memory", "-1", "c"});
    BOOST_TEST(update.arguments.text("memory") == "-1");
    const Line exec = parse({"exec", "-e", "A=1,2", "--env=B=3", "c", "env"});
    BOOST_TEST(exec.arguments.list("env") == (std::vector<std::string>{"A=1,2", "B=3"}),
               boost::test_tools::per_element());
}

BOOST_AUTO_TEST_CASE(the_last_of_a_single_value_counts) {
    BOOST_TEST(parse({"create", "-b", "1", "-b", "2", "c"}).arguments.text("bundle") == "2");
}

BOOST_AUTO_TEST_CASE(bad_usage) {
    BOOST_TEST(errorOf({}) == "a command is needed");
    BOOST_TEST(errorOf({"foo"}) == "No help topic for 'foo'");
    BOOST_TEST(errorOf({"create", "--nope", "c"}) == "flag provided but not defined: -nope");
    BOOST_TEST(errorOf({"create", "c", "--bundle"}) == "flag needs an argument: -bundle");
    BOOST_TEST(errorOf({"create"}) == "arca-runtime: \"create\" requires exactly 1 argument(s)");
    BOOST_TEST(errorOf({"exec"}) == "arca-runtime: \"exec\" requires a minimum of 1 argument(s)");
    BOOST_TEST(errorOf({"list", "x"}) == "arca-runtime: \"list\" requires exactly 0 argument(s)");
    // What came before the mistake still counts: the log that the error goes to.
    BOOST_TEST(parse({"--log", "/l", "foo"}).globals.text("log") == "/l");
}

BOOST_AUTO_TEST_CASE(help_and_version_need_no_arguments) {
    BOOST_TEST(parse({"create", "--help"}).help);
    BOOST_TEST(!parse({"create", "--help"}).error);
    BOOST_TEST(parse({"-h"}).help);
    BOOST_TEST(parse({"-v"}).version);
    BOOST_TEST(!parse({"exec", "c", "sh", "--help"}).help);
}

BOOST_AUTO_TEST_CASE(an_empty_word_is_an_argument) {
    const Line line = parse({"state", ""});
    BOOST_TEST(!line.error);
    BOOST_TEST(line.arguments.positional().front().empty());
}

BOOST_AUTO_TEST_CASE(the_tables_are_consistent) {
    std::set<std::string_view> names;
    for (const Command& command : commands()) {
        BOOST_TEST_CONTEXT(std::string(command.name)) {
            BOOST_TEST(names.insert(command.name).second);
            BOOST_TEST(!command.summary.empty());
            BOOST_TEST((command.run != nullptr));
            std::set<std::string> seen;
            for (const Flag& flag : command.flags) {
                BOOST_TEST(seen.insert(std::string(flag.name)).second);
                BOOST_TEST((flag.letter == 0 || seen.insert({flag.letter}).second));
                BOOST_TEST(flag.value.empty() == (flag.kind == FlagKind::kBool));
                BOOST_TEST(!flag.help.empty());
                // A global flag of the same name could not be given after the command. --rootless
                // of spec means something else, as with runc.
                for (const Flag& global : globalFlags()) {
                    BOOST_TEST((global.name != flag.name || flag.name == "rootless"));
                    BOOST_TEST((global.letter == 0 || global.letter != flag.letter));
                }
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(help_names_every_command_and_flag) {
    const std::string top = helpText();
    for (const Command& command : commands()) {
        BOOST_TEST(top.find("\n   " + std::string(command.name) + " ") != std::string::npos);
        const std::string help = helpText(command);
        for (const Flag& flag : command.flags) {
            BOOST_TEST(help.find("   --" + std::string(flag.name)) != std::string::npos);
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace
}  // namespace arca::runtime
