// A list whose links lie in its members: constant time to append and remove, nothing to allocate.
#pragma once

namespace arca::vsock {

// A member of a list. Leaves its list when destroyed.
template <typename T>
class Link {
 public:
    explicit Link(T& owner) : owner_(&owner) {}
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() { unlink(); }

    [[nodiscard]] bool linked() const { return next_ != nullptr; }
    void unlink() {
        if (!linked()) return;
        previous_->next_ = next_;
        next_->previous_ = previous_;
        previous_ = next_ = nullptr;
    }

 private:
    template <typename>
    friend class LinkedList;

    Link() = default;  // a list's own end
    T* owner_ = nullptr;
    Link* previous_ = nullptr;
    Link* next_ = nullptr;
};

template <typename T>
class LinkedList {
 public:
    LinkedList() { end_.previous_ = end_.next_ = &end_; }
    LinkedList(const LinkedList&) = delete;
    LinkedList& operator=(const LinkedList&) = delete;
    ~LinkedList() {
        while (!empty()) end_.next_->unlink();
        end_.previous_ = end_.next_ = nullptr;
    }

    [[nodiscard]] bool empty() const { return end_.next_ == &end_; }
    [[nodiscard]] T& front() const { return *end_.next_->owner_; }

    // Puts `link` at the end, taking it out of where it was.
    void pushBack(Link<T>& link) {
        link.unlink();
        link.previous_ = end_.previous_;
        link.next_ = &end_;
        end_.previous_->next_ = &link;
        end_.previous_ = &link;
    }

 private:
    Link<T> end_;
};

}  // namespace arca::vsock
