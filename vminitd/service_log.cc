#include "vminitd/service_log.h"

#include "base/log.h"
#include "base/strings.h"

namespace arca::vminitd {

void ServiceLog::add(std::string_view bytes) {
    while (!bytes.empty()) {
        const size_t end = bytes.find('\n');
        const size_t room = kLongestLine - partial_.size();
        const size_t taken = std::min({end, room, bytes.size()});
        partial_ += bytes.substr(0, taken);
        bytes.remove_prefix(taken);
        const bool ended = !bytes.empty() && bytes.front() == '\n';
        if (ended) bytes.remove_prefix(1);
        if (!ended && partial_.size() < kLongestLine) return;
        line(partial_);
        partial_.clear();
    }
}

void ServiceLog::finish() {
    if (!partial_.empty()) line(partial_);
    partial_.clear();
    if (left_out_ == 0) return;
    base::log::relay(program_, std::to_string(left_out_) + " lines left out");
    left_out_ = 0;
}

void ServiceLog::line(std::string_view text) {
    if (base::trim(text).empty()) return;
    kept_.emplace_back(text);
    if (kept_.size() > kKeptLines) kept_.pop_front();
    write(text);
}

void ServiceLog::write(std::string_view text) {
    const auto now = std::chrono::steady_clock::now();
    if (now - second_ >= std::chrono::seconds(1)) {
        second_ = now;
        written_ = 0;
    }
    if (written_ >= kLinesPerSecond) {
        ++left_out_;
        return;
    }
    if (left_out_ != 0) {
        base::log::relay(program_, std::to_string(left_out_) + " lines left out");
        left_out_ = 0;
    }
    ++written_;
    base::log::relay(program_, text);
}

std::string ServiceLog::tail() const {
    constexpr std::string_view kBetween = " | ";
    std::string out;
    for (auto text = kept_.rbegin(); text != kept_.rend(); ++text) {
        std::string shown = base::printable(base::trim(*text));
        if (out.empty()) shown = shown.substr(0, kKeptBytes);
        if (out.size() + shown.size() > kKeptBytes) break;
        out = out.empty() ? shown : shown + std::string(kBetween) + out;
    }
    return out;
}

}  // namespace arca::vminitd
