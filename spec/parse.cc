#include "spec/parse.h"

#include "base/strings.h"
#include "spec/value_rules.h"

namespace arca::spec {
namespace {

using base::Result;

bool isSemVerNumber(std::string_view text) {
    if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos)
        return false;
    return text == "0" || text.front() != '0';
}

// What follows '-' or '+': identifiers of letters, digits and '-', between dots.
bool isSemVerSuffix(std::string_view text) {
    for (const std::string_view part : base::split(text, '.')) {
        if (part.empty()) return false;
        for (const char c : part) {
            const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
            if (!letter && !(c >= '0' && c <= '9') && c != '-') return false;
        }
    }
    return true;
}

// MAJOR.MINOR.PATCH[-PRERELEASE][+BUILD]. Source: semver.org 2.0.0.
bool isSemVer(std::string_view text) {
    const size_t plus = text.find('+');
    if (plus != std::string_view::npos && !isSemVerSuffix(text.substr(plus + 1))) return false;
    text = text.substr(0, plus);
    const size_t dash = text.find('-');
    if (dash != std::string_view::npos && !isSemVerSuffix(text.substr(dash + 1))) return false;
    const auto numbers = base::split(text.substr(0, dash), '.');
    return numbers.size() == 3 && std::all_of(numbers.begin(), numbers.end(), isSemVerNumber);
}

void getVersion(const JsonObject& object, Source source, std::string& target) {
    object.get("ociVersion", target);
    if (target.empty()) {
        if (source == Source::kBundle) object.missing("ociVersion");
        return;
    }
    if (!isSemVer(target)) {
        object.fail("ociVersion", shown(target) + " is no semantic version");
    } else if (!target.starts_with("1.")) {
        object.fail("ociVersion", shown(target) + " is not supported; 1.x.y is");
    }
}

bool hasOption(const Mount& mount, std::string_view name) {
    return std::find(mount.options.begin(), mount.options.end(), name) != mount.options.end();
}

// An ID-mapped mount needs a mapping: its own, or that of a user namespace.
void checkIdMappedMounts(const JsonObject& object, const Spec& spec) {
    if (spec.linux.findNamespace(NamespaceType::kUser) != nullptr) return;
    for (size_t i = 0; i < spec.mounts.size() && !object.failed(); ++i) {
        const Mount& mount = spec.mounts[i];
        if (!mount.uidMappings.empty()) continue;
        for (const std::string_view option : {"idmap", "ridmap"}) {
            if (!hasOption(mount, option)) continue;
            const std::string name(option);
            object.find("mounts").element(i).fail("option " + name +
                                                  " needs mappings or a user namespace");
        }
    }
}

void checkUtsNamespace(const JsonObject& object, const Spec& spec) {
    constexpr char kRule[] = "needs a UTS namespace";
    if (spec.linux.findNamespace(NamespaceType::kUts) != nullptr) return;
    if (!spec.hostname.empty()) object.fail("hostname", kRule);
    if (!spec.domainname.empty()) object.fail("domainname", kRule);
}

void getUtsName(const JsonObject& object, std::string_view name, std::string& target) {
    constexpr size_t kLongest = 64;  // __NEW_UTS_LEN
    if (!object.get(name, target) || target.size() <= kLongest) return;
    object.fail(name, "must have at most 64 bytes");
}

// Starts reading `json`, hands the document to `function`, and gives the first failure back.
template <typename T>
Result<T> parseDocument(std::string_view json, Source source, Warnings* warnings) {
    const JsonUtf8 utf8 = source == Source::kWire ? JsonUtf8::kRaw : JsonUtf8::kStrict;
    ARCA_TRY(JsonReader reader, JsonReader::parse(json, utf8, source, warnings));
    T target;
    decode(reader.root(), target);
    if (reader.failed()) return base::fail(reader.takeFailure());
    return target;
}

}  // namespace

static void decode(JsonValue value, Root& target) {
    const JsonObject object(value);
    requireText(object, "path", target.path);
    object.get("readonly", target.readonly);
}

static void decode(JsonValue value, Mount& target) {
    const JsonObject object(value);
    requireText(object, "destination", target.destination);
    if (!object.failed() && !isAbsolute(target.destination)) {
        object.find("destination").warn("relative destinations are deprecated; taken from /");
        target.destination.insert(target.destination.begin(), '/');
    }
    object.get("type", target.type);
    object.get("source", target.source);
    object.get("options", target.options);
    getIdMappings(object, "uidMappings", target.uidMappings);
    getIdMappings(object, "gidMappings", target.gidMappings);
    if (target.uidMappings.empty() != target.gidMappings.empty()) {
        value.fail("must have both of uidMappings and gidMappings, or neither");
    }
}

void decode(JsonValue value, Spec& target) {
    const JsonObject object(value);
    const Source source = value.reader()->source();
    getVersion(object, source, target.ociVersion);
    if (!object.get("root", target.root)) object.missing("root");
    object.get("process", target.process);
    getUtsName(object, "hostname", target.hostname);
    getUtsName(object, "domainname", target.domainname);
    object.get("mounts", target.mounts);
    object.get("hooks", target.hooks);
    object.get("annotations", target.annotations);
    target.has_linux = object.get("linux", target.linux);
    object.get("vm", target.vm);
    if (source == Source::kBundle) checkUtsNamespace(object, target);
    checkIdMappedMounts(object, target);
}

Result<Spec> parseSpec(std::string_view json, Source source, Warnings* warnings) {
    return parseDocument<Spec>(json, source, warnings);
}

Result<Process> parseProcess(std::string_view json, Source source, Warnings* warnings) {
    return parseDocument<Process>(json, source, warnings);
}

Result<Resources> parseResources(std::string_view json) {
    return parseDocument<Resources>(json, Source::kBundle, nullptr);
}

}  // namespace arca::spec
