/* kvern.hpp: GGUF files, by a file that is written here byte by byte. */
#include <kvern.hpp>

#include "expect.hpp"

#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

/* The bytes of a file. */
struct bytes {
    std::string all;

    bytes &number(std::uint64_t number, int len) {
        for (int i = 0; i < len; ++i)
            all += char(number >> (8 * i));
        return *this;
    }
    bytes &text(std::string_view text) {
        number(text.size(), 8);
        all += text;
        return *this;
    }
    bytes &key(std::string_view key, kvern_gguf_type kind) {
        return text(key).number(std::uint64_t(kind), 4);
    }
    bytes &array(std::string_view name, kvern_gguf_type kind, std::size_t len) {
        return key(name, KVERN_GGUF_ARRAY).number(std::uint64_t(kind), 4).number(len, 8);
    }
};

int files() {
    bytes b;
    b.all = "GGUF";
    b.number(3, 4).number(2, 8).number(9, 8);
    b.key("u", KVERN_GGUF_U16).number(7, 2).key("i", KVERN_GGUF_I8).number(0xFE, 1);
    b.key("f", KVERN_GGUF_F32).number(0x3F000000, 4).key("b", KVERN_GGUF_BOOL).number(1, 1);
    b.key("s", KVERN_GGUF_STR).text("text");
    b.array("strs", KVERN_GGUF_STR, 3).text("a").text("").text("bc");
    b.array("i64s", KVERN_GGUF_I16, 2).number(1, 2).number(0xFFFF, 2);
    b.array("f64s", KVERN_GGUF_F32, 1).number(0x3F000000, 4);
    b.array("bools", KVERN_GGUF_BOOL, 2).number(0x0100, 2);
    b.text("w").number(3, 4).number(2, 8).number(2, 8).number(2, 8).number(0, 4).number(0, 8);
    b.text("odd").number(1, 4).number(5, 8).number(99, 4).number(0, 8);
    while (b.all.size() % 32 != 0)
        b.all += '\0';
    for (int i = 0; i < 8; ++i) // 1, 2, 4 .. 128
        b.number((127u + unsigned(i)) << 23, 4);
    const char *path = "cpp.gguf";
    std::ofstream(path, std::ios::binary) << b.all;

    const kvern::context ctx = kvern::context::create();
    for (int loaded = 0; loaded < 2; ++loaded) {
        const kvern::gguf file = loaded ? kvern::gguf::load(path) : kvern::gguf::open(path);
        EXPECT(file.tensor_count() == 2 && file.key_count() == 9);
        const kvern_gguf_tensor w = file.tensor("w"), odd = file.tensor(std::size_t(1));
        EXPECT(std::string_view(w.name, w.name_bytes) == "w" && w.kind == KVERN_WEIGHT_FORMAT_F32);
        EXPECT(w.dims == 3 && w.shape[0] == 2 && w.shape[2] == 2 && w.shape[3] == 1 && w.data_bytes == 32);
        EXPECT(odd.kind == 99 && odd.data == nullptr && odd.data_bytes == 0);
        std::vector<float> all(8), row(2);
        file.read_f32("w", all);
        EXPECT(all[0] == 1 && all[7] == 128);
        file.weights("w", 1).dequantize_row(1, row);
        EXPECT(row[0] == 64 && row[1] == 128);
        file.weights(ctx, "w").dequantize_row(1, row);
        EXPECT(row[0] == 4 && row[1] == 8);

        const kvern_gguf_key strs = file.key("strs"), first = file.key(std::size_t(0));
        EXPECT(strs.kind == KVERN_GGUF_ARRAY && strs.element == KVERN_GGUF_STR && strs.len == 3);
        EXPECT(std::string_view(first.key, first.key_bytes) == "u" && first.kind == KVERN_GGUF_U16);
        EXPECT(file.get_u64("u") == 7 && file.get_i64("i") == -2 && file.get_f64("f") == 0.5);
        EXPECT(file.get_bool("b") && file.get_str("s") == "text");
        std::vector<std::string_view> texts(2);
        std::vector<std::int64_t> integers(2);
        std::vector<double> floats(1);
        std::vector<std::uint8_t> flags(2);
        file.get_strs("strs", 1, texts);
        file.get_i64s("i64s", 0, integers);
        file.get_f64s("f64s", 0, floats);
        file.get_bools("bools", 0, flags);
        EXPECT(texts[0] == "" && texts[1] == "bc" && integers[1] == -1 && floats[0] == 0.5);
        EXPECT(flags[0] == 0 && flags[1] == 1);
        try {
            file.get_u64("none");
            return 1;
        } catch (const kvern::error &e) {
            EXPECT(e.status() == KVERN_STATUS_OPTION);
        }
    }
    return 0;
}

} // namespace

int main() { return files(); }
