//! Metadata: every type of value, arrays, and what is asked for as another type.

use crate::raw::Raw;
use crate::read;
use kvern::gguf::{Value, ValueType};

/// One key of each type, byte by byte.
fn every_type() -> Vec<u8> {
    let raw = Raw::new(0, 13)
        .key("u8", 0)
        .bytes(&[200])
        .key("i8", 1)
        .bytes(&[0x80])
        .key("u16", 2)
        .bytes(&[0x34, 0x12])
        .key("i16", 3)
        .bytes(&[0xFE, 0xFF])
        .key("u32", 4)
        .u32(0xDEAD_BEEF)
        .key("i32", 5)
        .u32(0xFFFF_FFFD)
        .key("f32", 6)
        .bytes(&1.5f32.to_le_bytes())
        .key("bool", 7)
        .bytes(&[1])
        .key("str", 8)
        .text("gr\u{fc}n")
        .key("array", 9)
        .u32(8)
        .u64(3)
        .text("a")
        .text("")
        .text("bc");
    let raw = raw.key("u64", 10).u64(u64::MAX).key("i64", 11).u64(u64::MAX - 3);
    raw.key("f64", 12).bytes(&(-0.25f64).to_le_bytes()).0
}

#[test]
fn every_type_of_value_is_read() {
    let file = read(&every_type()).unwrap();
    let keys: Vec<&str> = file.keys().map(|(key, _)| key).collect();
    let names: Vec<&str> = ValueType::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(keys, names);
    for (key, value) in file.keys() {
        assert_eq!(value.kind().name(), key);
        assert_eq!(file.get(key), Some(value));
    }
    assert_eq!(file.get("u8"), Some(Value::U8(200)));
    assert_eq!(file.get("i8"), Some(Value::I8(-128)));
    assert_eq!(file.get("u16"), Some(Value::U16(0x1234)));
    assert_eq!(file.get("i16"), Some(Value::I16(-2)));
    assert_eq!((file.u64("u32"), file.i64("i32")), (Ok(0xDEAD_BEEF), Ok(-3)));
    assert_eq!((file.f64("f32"), file.f64("f64")), (Ok(1.5), Ok(-0.25)));
    assert_eq!((file.bool("bool"), file.str("str")), (Ok(true), Ok("gr\u{fc}n")));
    assert_eq!((file.u64("u64"), file.i64("i64")), (Ok(u64::MAX), Ok(-4)));
    let array = file.array("array").unwrap();
    let texts: Vec<_> = array.iter().filter_map(|value| value.to_str()).collect();
    assert_eq!((array.kind(), array.len(), texts), (ValueType::Str, 3, vec!["a", "", "bc"]));
    assert_eq!((array.get(2), array.get(3)), (Some(Value::Str("bc")), None));
    assert_eq!((file.get("none"), file.key_count(), file.key(13)), (None, 13, None));
}

#[test]
fn values_of_another_type_are_refused_with_both() {
    let file = read(&every_type()).unwrap();
    let says = |e: kvern::Error, text: &str| assert_eq!(e.to_string(), text);
    says(file.u64("none").unwrap_err(), "key = `none` must be a key of the file");
    says(file.u64("str").unwrap_err(), "stored value = `str` of type str must be an integer from 0 on");
    says(file.u64("i32").unwrap_err(), "stored value = `i32` of type i32 (-3) must be an integer from 0 on");
    says(
        file.i64("u64").unwrap_err(),
        "stored value = `u64` of type u64 must be an integer of 64 bits with sign",
    );
    says(file.f64("u8").unwrap_err(), "stored value = `u8` of type u8 (200) must be f32 or f64");
    says(file.bool("u8").unwrap_err(), "stored value = `u8` of type u8 (200) must be bool");
    says(file.str("array").unwrap_err(), "stored value = `array` of type array must be str");
    says(file.array("f64").unwrap_err(), "stored value = `f64` of type f64 must be array");
}

#[test]
fn arrays_of_numbers_and_of_arrays_are_read_where_they_lie() {
    let nested = Raw::new(0, 2).key("nested", 9).u32(9).u64(3);
    let nested = nested.u32(2).u64(2).bytes(&[1, 0, 2, 0]);
    let nested = nested.u32(9).u64(1).u32(7).u64(2).bytes(&[1, 0]);
    let raw = nested.u32(8).u64(1).text("x").key("flat", 9).u32(11).u64(2).u64(7).u64(u64::MAX);
    let file = read(&raw.0).unwrap();
    let flat = file.array("flat").unwrap();
    assert_eq!((flat.get(0), flat.get(1), flat.get(2)), (Some(Value::I64(7)), Some(Value::I64(-1)), None));
    assert_eq!(flat.get(usize::MAX), None);
    let nested: Vec<_> =
        file.array("nested").unwrap().into_iter().filter_map(|value| value.to_array()).collect();
    let lens: Vec<_> = nested.iter().map(|array| (array.kind(), array.len())).collect();
    assert_eq!(lens, [(ValueType::U16, 2), (ValueType::Array, 1), (ValueType::Str, 1)]);
    assert_eq!(nested[0].get(1), Some(Value::U16(2)));
    let flags = nested[1].get(0).and_then(|value| value.to_array()).unwrap();
    assert_eq!((flags.get(0), flags.get(1)), (Some(Value::Bool(true)), Some(Value::Bool(false))));
    assert_eq!(nested[2].get(0), Some(Value::Str("x")));
}

#[test]
fn arrays_lie_in_each_other_only_so_deep() {
    let deep = |depth: u32| {
        let raw = (1..depth).fold(Raw::new(0, 1).key("deep", 9), |raw, _| raw.u32(9).u64(1));
        read(&raw.u32(0).u64(1).bytes(&[5]).0)
    };
    assert!(deep(4).is_ok());
    let says = "stored depth of arrays in each other = 5 must be at most 4";
    for depth in [5, 100, 100_000] {
        assert_eq!(deep(depth).unwrap_err().to_string(), says);
    }
}
