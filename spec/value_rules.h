// Rules that several properties share, on top of json_reader.h.
//
// Internal to spec/. Functions that take a JsonObject fail it with the pointer of the property.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "spec/json_reader.h"
#include "spec/known_names.h"
#include "spec/spec.h"

namespace arca::spec {

inline bool isAbsolute(std::string_view path) {
    return !path.empty() && path.front() == '/';
}

// Decodes an optional number that must be at least `low`.
template <typename T>
void getAtLeast(const JsonObject& object, std::string_view name, T& target,
                std::type_identity_t<T> low) {
    if (!object.get(name, target) || target >= low) return;
    object.fail(name, "must be at least " + std::to_string(low) + ", is " + std::to_string(target));
}
template <typename T>
void getAtLeast(const JsonObject& object, std::string_view name, std::optional<T>& target,
                std::type_identity_t<T> low) {
    T number = low;
    if (!object.find(name).exists()) return;
    getAtLeast(object, name, number, low);
    target = number;
}

// Decodes an optional number that must be `low`..`high`.
template <typename T>
void getBetween(const JsonObject& object, std::string_view name, T& target,
                std::type_identity_t<T> low, std::type_identity_t<T> high) {
    if (!object.get(name, target) || (target >= low && target <= high)) return;
    object.fail(name, "must be " + std::to_string(low) + ".." + std::to_string(high) + ", is " +
                          std::to_string(target));
}
template <typename T>
void getBetween(const JsonObject& object, std::string_view name, std::optional<T>& target,
                std::type_identity_t<T> low, std::type_identity_t<T> high) {
    T number = low;
    if (!object.find(name).exists()) return;
    getBetween(object, name, number, low, high);
    target = number;
}

// Decodes an optional string that must be one of `known`, or empty; else "X `complaint`", e.g. "is
// no scheduling policy". Empty is absent: the guest protocol's clients write it so.
void getOneOf(const JsonObject& object, std::string_view name, std::string& target,
              names::List known, std::string_view complaint);
// The same for a required one; empty is missing.
void requireOneOf(const JsonObject& object, std::string_view name, std::string& target,
                  names::List known, std::string_view complaint);
// The same for a list of them; an empty element is unknown.
void getListOf(const JsonObject& object, std::string_view name, std::vector<std::string>& target,
               names::List known, std::string_view complaint);

// Decodes a required string that must not be empty.
void requireText(const JsonObject& object, std::string_view name, std::string& target);
// Decodes an optional absolute path; empty is absent.
void getAbsolutePath(const JsonObject& object, std::string_view name, std::string& target);
// Decodes an optional list of absolute paths.
void getAbsolutePaths(const JsonObject& object, std::string_view name,
                      std::vector<std::string>& target);
// Decodes a user or group id. 2^32-1 is refused: to the kernel's set*id calls it means "leave as it
// is".
void getId(const JsonObject& object, std::string_view name, uint32_t& target);

// Fails at the first member of the object `value` that is not one of `known`.
void refuseOthers(JsonValue value, names::List known);

// Gives a service without a name that of its program; fails `at`'s "service" when that is none.
void nameService(Hook& hook, const JsonObject& at);

// Each entry of the list must be NAME=VALUE with a NAME.
void checkEnvironment(JsonValue list);

// Fails unless `text` is a list as "0-3,7" of numbers up to `max`, ranges in rising order.
void checkNumberList(const JsonObject& object, std::string_view name, std::string_view text,
                     uint32_t max);

// A name that the kernel lets a network device have. Source: dev_valid_name() of Linux.
bool isInterfaceName(std::string_view name);

// uidMappings and gidMappings of one object.
void getIdMappings(const JsonObject& object, std::string_view name, std::vector<IdMapping>& target);

// Those that cross files.
void decode(JsonValue value, Process& target);      // parse_process.cc
void decode(JsonValue value, Hook& target);         // parse_hooks.cc
void decode(JsonValue value, HookService& target);  // parse_hooks.cc
void decode(JsonValue value, Hooks& target);        // parse_hooks.cc
void decode(JsonValue value, Linux& target);        // parse_linux.cc
void decode(JsonValue value, Resources& target);    // parse_resources.cc
void decode(JsonValue value, Vm& target);           // parse_vm.cc
void decode(JsonValue value, Spec& target);         // parse.cc
// nullopt for an object that asks for nothing.
void decode(JsonValue value, std::optional<Seccomp>& target);  // parse_seccomp.cc

}  // namespace arca::spec
