//! The examples in `examples/` run; what they print they have asserted before.

#[path = "../../examples/decode.rs"]
mod decode;
#[path = "../../examples/int4_linear.rs"]
mod int4_linear;
#[path = "../../examples/matmul.rs"]
mod matmul;

#[test]
fn every_rust_example_runs() {
    for (name, run) in
        [("matmul", matmul::main as fn() -> _), ("int4_linear", int4_linear::main), ("decode", decode::main)]
    {
        let result: kvern::Result<()> = run();
        assert_eq!(result, Ok(()), "{name}");
    }
    let examples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    assert_eq!(examples.count(), 3, "an example that this test does not run");
}
