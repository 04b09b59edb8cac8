/* A plugin of qemu-user that counts the guest's instructions between a function's first and its return.
 *
 *   qemu-aarch64 -plugin libcount.so,symbol=NAME -d plugin -D COUNT PROGRAM ..
 *
 * Writes the instructions of each outermost call of a function whose symbol contains NAME, one number a
 * line. Blocks of instructions are counted when they run, so the count is exact, and the same on every host.
 * Debian does not package qemu-plugin.h: what is used of the interface (version 1, QEMU 4.2 and later) is
 * declared here. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*vcpu_udata_cb)(unsigned int, void *);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, vcpu_udata_cb, enum qemu_plugin_cb_flags,
                                          void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

/* A translated block. Lives as long as the process: qemu keeps pointers to it. */
struct block {
    uint64_t start, end, instructions;
    int is_function; /* begins with the function that is counted */
};

static const char *symbol = "__iai_callgrind_wrapper_mod";
static int counting;
static uint64_t count, after_call, previous_end;

static void run(unsigned int vcpu, void *data) {
    const struct block *b = data;
    (void)vcpu;
    if (counting && b->start == after_call) {
        char line[32];
        counting = 0;
        snprintf(line, sizeof line, "%" PRIu64 "\n", count);
        qemu_plugin_outs(line);
    } else if (!counting && b->is_function) {
        /* A call ends its block: the function returns to what follows it. */
        counting = 1;
        count = 0;
        after_call = previous_end;
    }
    if (counting) {
        count += b->instructions;
    }
    previous_end = b->end;
}

/* Whether the instruction is the first one of the function: the one before it is of another. */
static int begins(const struct qemu_plugin_insn *insn) {
    static uint64_t entry;
    const char *name = qemu_plugin_insn_symbol(insn);
    if (name == NULL || strstr(name, symbol) == NULL) {
        return 0;
    }
    /* The first block of it that is ever translated begins with its entry. */
    if (entry == 0) {
        entry = qemu_plugin_insn_vaddr(insn);
    }
    return qemu_plugin_insn_vaddr(insn) == entry;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    size_t n = qemu_plugin_tb_n_insns(tb);
    const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, n - 1);
    struct block *b = malloc(sizeof *b);
    (void)id;
    if (b == NULL) {
        abort();
    }
    b->start = qemu_plugin_tb_vaddr(tb);
    b->end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
    b->instructions = n;
    b->is_function = begins(qemu_plugin_tb_get_insn(tb, 0));
    qemu_plugin_register_vcpu_tb_exec_cb(tb, run, QEMU_PLUGIN_CB_NO_REGS, b);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info,
                                                               int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "symbol=", 7) != 0 || (symbol = strdup(argv[i] + 7)) == NULL) {
            fprintf(stderr, "count.so: %s is no option\n", argv[i]);
            return 1;
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
