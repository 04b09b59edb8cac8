// kvern in WebAssembly as a C program sees it: memory, strings, constants and structs of include/kvern.h.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const { instance } = await WebAssembly.instantiate(readFileSync(process.argv[2]), {});
export const kvern = instance.exports;
const header = readFileSync(new URL("../../include/kvern.h", import.meta.url), "utf8");

const PAGE = 65536;
const pages = 512;
// An arena of this side, in pages that the library's allocator has not asked for. Calls write to its start.
const out = kvern.memory.grow(pages) * PAGE;
const start = out + 64;
let end = start;

export const view = (Type, at, length) => new Type(kvern.memory.buffer, at, length);

// Zeros in the arena, until `reset`.
export function allocate(bytes) {
    const at = end;
    end += Math.ceil(bytes / 64) * 64;
    assert(end <= out + pages * PAGE, "the arena is full");
    view(Uint8Array, at, bytes).fill(0);
    return at;
}
export const reset = () => (end = start);

export function floats(values) {
    const at = allocate(4 * values.length);
    view(Float32Array, at, values.length).set(values);
    return at;
}

export function text(at) {
    const bytes = view(Uint8Array, at);
    return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
}

export function string(value) {
    const bytes = Buffer.from(`${value}\0`);
    const at = allocate(bytes.length);
    view(Uint8Array, at, bytes.length).set(bytes);
    return at;
}

export const hash = (at, bytes) => createHash("sha256").update(view(Uint8Array, at, bytes)).digest("hex");

// The numbers `#define PREFIX_NAME number` of the header, by their names in lower case.
export function constants(prefix) {
    const found = header.matchAll(new RegExp(`^#define ${prefix}_(\\w+) \\(?(-?\\d+)\\)?$`, "gm"));
    return new Map([...found].map(([, name, number]) => [name.toLowerCase(), Number(number)]));
}

// A struct of the header with these fields, and zeros in the others.
export function struct(name, fields) {
    const before = header.slice(0, header.indexOf(`\n} ${name};`));
    const body = before.slice(before.lastIndexOf("typedef struct {")).replaceAll(/\/\*.*?\*\//gs, "");
    const declared = [...body.matchAll(/^\s+(.*?)(\w+);$/gm)];
    const wide = { "float ": Float32Array, "double ": Float64Array };
    const types = declared.map(([, type]) => wide[type] ?? Int32Array); // pointers have 32 bits
    const size = types.reduce((sum, Type) => sum + Type.BYTES_PER_ELEMENT, 0);
    const at = allocate(size);
    let field = at;
    const given = { struct_size: size, ...fields };
    for (const [i, [, , of]] of declared.entries()) {
        if (of in given) view(types[i], field, 1)[0] = given[of];
        delete given[of];
        field += types[i].BYTES_PER_ELEMENT;
    }
    assert.deepEqual(given, {}, `${name} has no such fields`);
    return at;
}

export const ok = (status) => assert.equal(status, 0, text(kvern.kvern_last_error_message()));

// What a function writes to its last argument.
export function made(name, ...args) {
    view(Uint32Array, out, 1)[0] = 0;
    ok(kvern[name](...args, out));
    return view(Uint32Array, out, 1)[0];
}

// A call is refused with a status and a message, and makes nothing.
export function refused(status, message, name, ...args) {
    view(Uint32Array, out, 1)[0] = 1;
    assert.equal(kvern[name](...args, out), status, name);
    assert.match(text(kvern.kvern_last_error_message()), message);
    assert.equal(view(Uint32Array, out, 1)[0], 0);
}
