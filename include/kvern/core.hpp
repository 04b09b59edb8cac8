/* What all of kvern for C++ is made of: errors or results, views of the caller's memory, owners of
 * C objects. */
#ifndef KVERN_CORE_HPP
#define KVERN_CORE_HPP

#include "../kvern.h"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#if !defined(KVERN_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define KVERN_NO_EXCEPTIONS
#endif
#ifndef KVERN_NO_EXCEPTIONS
#include <stdexcept>
#endif

/* The two kinds of every object live in inline namespaces of their own. */
#ifdef KVERN_NO_EXCEPTIONS
#define KVERN_ERRORS results
#else
#define KVERN_ERRORS exceptions
#endif

namespace kvern {
inline namespace KVERN_ERRORS {

/** What a call without a value returns in a result. */
struct nothing {};

/** Why a call was refused. */
struct failure {
    kvern_status status;
    std::string message;
};

#ifdef KVERN_NO_EXCEPTIONS

/** A value, or why there is none. */
template <class T>
class [[nodiscard]] result {
  public:
    result(T value) : value_(std::move(value)) {}
    result(failure why) : status_(why.status), message_(std::move(why.message)) {}

    /** Whether there is a value. */
    explicit operator bool() const noexcept { return value_.has_value(); }
    bool has_value() const noexcept { return value_.has_value(); }
    /** KVERN_STATUS_OK, or the status of the failure. */
    kvern_status status() const noexcept { return status_; }
    /** The sentence of the failure, "" for none. */
    const char *message() const noexcept { return message_.c_str(); }
    /** The value, which must be there. */
    T &operator*() & noexcept { return *value_; }
    const T &operator*() const & noexcept { return *value_; }
    T &&operator*() && noexcept { return std::move(*value_); }
    T *operator->() noexcept { return &*value_; }
    const T *operator->() const noexcept { return &*value_; }
    /** The value, or `other`. */
    T value_or(T other) const { return value_ ? *value_ : std::move(other); }

  private:
    std::optional<T> value_;
    kvern_status status_ = KVERN_STATUS_OK;
    std::string message_;
};

/** What a method returns that has nothing to say: a result without a value. */
using done = result<nothing>;
template <class T>
using returns = result<T>;

#else

/** A refused call. what() is the sentence of the library. */
class error : public std::runtime_error {
  public:
    explicit error(const failure &why) : std::runtime_error(why.message), status_(why.status) {}
    /** A KVERN_STATUS_* number. */
    kvern_status status() const noexcept { return status_; }

  private:
    kvern_status status_;
};

using done = void;
template <class T>
using returns = T;

#endif

/** `size` elements from `data` on, of the caller. Made from whatever has data() and size():
 * vectors, arrays. */
template <class T>
class span {
  public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N>
    constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class C,
              class = std::enable_if_t<std::is_convertible_v<decltype(std::declval<C &>().data()), T *>>>
    constexpr span(C &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** A row-major matrix of the caller: element (i, j) is data[i * row_stride + j]. */
template <class T>
class matrix {
  public:
    constexpr matrix(T *data, std::size_t rows, std::size_t cols) noexcept : matrix(data, rows, cols, cols) {}
    constexpr matrix(T *data, std::size_t rows, std::size_t cols, std::size_t row_stride) noexcept
        : data_(data), rows_(rows), cols_(cols), row_stride_(row_stride) {}
    /** A writable matrix, to read. */
    template <class U, class = std::enable_if_t<std::is_same_v<const U, T>>>
    constexpr matrix(const matrix<U> &m) noexcept : matrix(m.data(), m.rows(), m.cols(), m.row_stride()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t rows() const noexcept { return rows_; }
    constexpr std::size_t cols() const noexcept { return cols_; }
    constexpr std::size_t row_stride() const noexcept { return row_stride_; }
    constexpr T &operator()(std::size_t i, std::size_t j) const noexcept {
        return data_[i * row_stride_ + j];
    }
    constexpr span<T> row(std::size_t i) const noexcept { return {data_ + i * row_stride_, cols_}; }

  private:
    T *data_;
    std::size_t rows_, cols_, row_stride_;
};

using input = matrix<const float>;
using output = matrix<float>;

/** The bits of an IEEE binary16, and of the upper half of a binary32: elements of matrices, without
 * arithmetic. */
enum class f16 : std::uint16_t {};
enum class bf16 : std::uint16_t {};

namespace detail {

/** The failure of the calling thread's last call. */
inline failure last(kvern_status status) { return {status, kvern_last_error_message()}; }

#ifdef KVERN_NO_EXCEPTIONS
inline done refuse(failure why) { return done(std::move(why)); }
inline done finish(kvern_status status) {
    return status == KVERN_STATUS_OK ? done(nothing{}) : done(last(status));
}
template <class T>
returns<T> finish(kvern_status status, T value) {
    return status == KVERN_STATUS_OK ? returns<T>(std::move(value)) : returns<T>(last(status));
}
#else
[[noreturn]] inline void refuse(failure why) { throw error(why); }
inline void finish(kvern_status status) {
    if (status != KVERN_STATUS_OK)
        refuse(last(status));
}
template <class T>
T finish(kvern_status status, T value) {
    finish(status);
    return value;
}
#endif

/** Two numbers that must be the same. */
struct pair {
    const char *what;
    std::size_t got;
    const char *other;
    std::size_t want;
};

/** The first pair that disagrees is the error, else the status of `call`, which is not made before. */
template <class Call>
done checked(std::initializer_list<pair> pairs, Call call) {
    for (const pair &p : pairs) {
        if (p.got != p.want) {
            const std::string message = std::string(p.what) + " = " + std::to_string(p.got) + " must equal " +
                                        p.other + " = " + std::to_string(p.want);
            return refuse({KVERN_STATUS_SHAPE, message});
        }
    }
    return finish(call());
}

/** Rows and columns of what is stored transposed, or not. */
template <class T>
constexpr std::size_t stored_rows(const matrix<T> &b, bool transposed) {
    return transposed ? b.cols() : b.rows();
}
template <class T>
constexpr std::size_t stored_cols(const matrix<T> &b, bool transposed) {
    return transposed ? b.rows() : b.cols();
}

/** The KVERN_DTYPE_* number of an element type. */
template <class T>
constexpr kvern_dtype dtype_of() {
    using element = std::remove_const_t<T>;
    static_assert(std::is_same_v<element, float> || std::is_same_v<element, f16> ||
                      std::is_same_v<element, bf16>,
                  "elements are float, kvern::f16 or kvern::bf16");
    return std::is_same_v<element, float> ? KVERN_DTYPE_F32
           : std::is_same_v<element, f16> ? KVERN_DTYPE_F16
                                          : KVERN_DTYPE_BF16;
}

/** Sole owner of a C object. */
template <class T, void (*Destroy)(T *)>
class handle {
  public:
    using raw_type = T;

    /** Takes over an object, or NULL. */
    explicit handle(T *raw) noexcept : raw_(raw) {}
    handle(handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other)
            Destroy(std::exchange(raw_, std::exchange(other.raw_, nullptr)));
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() {
        if (raw_ != nullptr) // the call would forget the message of the last error
            Destroy(raw_);
    }

    /** The C object, which stays this one's; NULL after a move. */
    T *get() const noexcept { return raw_; }
    /** The C object, which is the caller's from now on. */
    T *release() noexcept { return std::exchange(raw_, nullptr); }

  private:
    T *raw_;
};

/** What `call` makes: it gets where to write the C object. */
template <class Wrapper, class Call>
returns<Wrapper> make(Call call) {
    typename Wrapper::raw_type *raw = nullptr;
    const kvern_status status = call(&raw);
    return finish(status, Wrapper(raw));
}

/** What `call` writes. */
template <class T, class Call>
returns<T> ask(Call call) {
    T value{};
    const kvern_status status = call(&value);
    return finish(status, value);
}

} // namespace detail

} // namespace KVERN_ERRORS
} // namespace kvern

#endif /* KVERN_CORE_HPP */
