// The encoders that more than one file of spec/ uses; internal to it.
#pragma once

#include <optional>

#include "spec/json_writer.h"
#include "spec/spec.h"

namespace arca::spec {

void encode(JsonWriter& out, const Spec& spec);            // write.cc
void encode(JsonWriter& out, const Process& process);      // write.cc
void encode(JsonWriter& out, const IdMapping& mapping);    // write.cc
void encode(JsonWriter& out, const Linux& spec);           // write_linux.cc
void encode(JsonWriter& out, const Resources& resources);  // write_linux.cc

}  // namespace arca::spec
