/*
 * kvern for C++17: every function of kvern.h as a method of an object that frees itself, or a function of
 * such objects. Header only.
 *
 * Objects are created by static functions, can be moved, and free their memory at the end of their scope;
 * get() gives the C handle, and the structs of options are those of C. Matrices are passed as
 * kvern::matrix<const float> (inputs) and kvern::matrix<float> (outputs): a pointer, rows, columns, and the
 * stride of a row in elements; vectors as kvern::span. Both only view memory of the caller. Everything else
 * (formulas, shapes, threads) is as kvern.h says: const methods may be called from several threads at a time,
 * each with a workspace of its own. Shapes that C has one number for, and views have two, are compared here
 * (KVERN_STATUS_SHAPE).
 *
 * A refused call throws kvern::error with the status and the message. Where KVERN_NO_EXCEPTIONS is defined
 * before this header is included, or exceptions are disabled, nothing throws: what would return T (or
 * nothing) returns a kvern::result<T>, to be asked before it is used:
 *
 *     kvern::context ctx = kvern::context::create();              // throws
 *
 *     kvern::result<kvern::context> ctx = kvern::context::create(); // KVERN_NO_EXCEPTIONS
 *     if (!ctx)
 *         die(ctx.message());
 *     ctx->isa();
 *
 * All sources of one program must agree on KVERN_NO_EXCEPTIONS, or not exchange kvern objects: the two kinds
 * live in different inline namespaces.
 */
#ifndef KVERN_HPP
#define KVERN_HPP

#include "kvern/attention.hpp" // attention, attention_plain, alibi_slopes
#include "kvern/cache.hpp"     // kv_cache
#include "kvern/context.hpp"   // context, workspace
#include "kvern/core.hpp"      // error or result, span, matrix
#include "kvern/gguf.hpp"      // gguf
#include "kvern/products.hpp"  // matmul, packed_b
#include "kvern/rope.hpp"      // rope_table, rope
#include "kvern/router.hpp"    // top_k, route
#include "kvern/rows.hpp"      // norms, softmax, activations, embedding, argmax, operations over tokens
#include "kvern/state.hpp"     // state, delta_rule, selective_scan, time_step
#include "kvern/weights.hpp"   // weights, multiply_many, blocks

#endif /* KVERN_HPP */
