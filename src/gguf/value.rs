//! Values of the metadata.

use super::cursor::Cursor;
use crate::blob::wrong;
use crate::error::Result;
use std::fmt;

/// How many arrays may lie in each other. Deeper ones are refused, so that no file can exhaust the stack.
const MAX_DEPTH: usize = 4;

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident($kind:ty) = $id:literal, $text:literal;)+) => {
        /// The type of a value. The numbers are those of the specification.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ValueType {
            $($(#[$doc])* $name = $id,)+
        }

        impl ValueType {
            /// Every type, in the order of its number.
            pub const ALL: [ValueType; 13] = [$(ValueType::$name),+];

            /// The name, such as `u32`, `str` or `array`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ValueType::$name => $text,)+
                }
            }
        }

        /// A value of the metadata; texts and arrays lie in the file.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Value<'a> {
            $($(#[$doc])* $name($kind),)+
        }

        impl Value<'_> {
            /// The type.
            pub fn kind(&self) -> ValueType {
                match self {
                    $(Value::$name(_) => ValueType::$name,)+
                }
            }
        }
    };
}

values! {
    /// 8 bits without sign.
    U8(u8) = 0, "u8";
    /// 8 bits with sign.
    I8(i8) = 1, "i8";
    /// 16 bits without sign.
    U16(u16) = 2, "u16";
    /// 16 bits with sign.
    I16(i16) = 3, "i16";
    /// 32 bits without sign.
    U32(u32) = 4, "u32";
    /// 32 bits with sign.
    I32(i32) = 5, "i32";
    /// IEEE binary32.
    F32(f32) = 6, "f32";
    /// One byte, 0 or 1.
    Bool(bool) = 7, "bool";
    /// A text in UTF-8, not terminated.
    Str(&'a str) = 8, "str";
    /// Values of one type.
    Array(Array<'a>) = 9, "array";
    /// 64 bits without sign.
    U64(u64) = 10, "u64";
    /// 64 bits with sign.
    I64(i64) = 11, "i64";
    /// IEEE binary64.
    F64(f64) = 12, "f64";
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueType {
    /// The type of a number.
    pub(super) fn of(number: u32) -> Result<ValueType> {
        let found = ValueType::ALL.into_iter().find(|kind| *kind as u32 == number);
        found.map_or_else(|| wrong("type of a value", number, "0..=12"), Ok)
    }

    /// Bytes of a value, where all have the same number.
    pub(super) fn bytes(self) -> Option<usize> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::Str | ValueType::Array => None,
        }
    }

    /// The least bytes of a value: of a text its length, of an array its type and its length.
    fn least(self) -> usize {
        self.bytes().unwrap_or(if self == ValueType::Str { 8 } else { 12 })
    }
}

impl<'a> Value<'a> {
    /// Reads a value, all of it: what is inside of an array is checked as well.
    pub(super) fn read(cursor: &mut Cursor<'a>, kind: ValueType) -> Result<Value<'a>> {
        Value::read_in(cursor, kind, MAX_DEPTH)
    }

    /// A value that lies in so many arrays less than there may be.
    fn read_in(cursor: &mut Cursor<'a>, kind: ValueType, depth: usize) -> Result<Value<'a>> {
        const VALUE: &str = "a value";
        Ok(match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::U64 => Value::U64(u64::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(cursor.array(VALUE)?)),
            ValueType::Bool => match cursor.array(VALUE)? {
                [byte @ 0..=1] => Value::Bool(byte == 1),
                [byte] => return wrong("value of type bool", byte, "0 or 1"),
            },
            ValueType::Str => Value::Str(cursor.text(usize::MAX, "text of a value")?),
            ValueType::Array => Value::Array(Array::read(cursor, depth)?),
        })
    }

    /// The number of a value of an integer type that is not negative.
    pub fn to_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(x) => Some(x.into()),
            Value::U16(x) => Some(x.into()),
            Value::U32(x) => Some(x.into()),
            Value::U64(x) => Some(x),
            _ => self.to_i64().and_then(|x| x.try_into().ok()),
        }
    }

    /// The number of a value of an integer type that i64 can hold.
    pub fn to_i64(&self) -> Option<i64> {
        match *self {
            Value::I8(x) => Some(x.into()),
            Value::I16(x) => Some(x.into()),
            Value::I32(x) => Some(x.into()),
            Value::I64(x) => Some(x),
            Value::U8(x) => Some(x.into()),
            Value::U16(x) => Some(x.into()),
            Value::U32(x) => Some(x.into()),
            Value::U64(x) => x.try_into().ok(),
            _ => None,
        }
    }

    /// The number of a value of type f32 or f64.
    pub fn to_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(x) => Some(x.into()),
            Value::F64(x) => Some(x),
            _ => None,
        }
    }

    /// The flag of a value of type bool.
    pub fn to_bool(&self) -> Option<bool> {
        if let Value::Bool(x) = *self { Some(x) } else { None }
    }

    /// The text of a value of type str.
    pub fn to_str(&self) -> Option<&'a str> {
        if let Value::Str(x) = *self { Some(x) } else { None }
    }

    /// The array of a value of type array.
    pub fn to_array(&self) -> Option<Array<'a>> {
        if let Value::Array(x) = *self { Some(x) } else { None }
    }
}

/// Values of one type, which lie in the file and are read when they are asked for.
#[derive(Clone, Copy, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    /// The values, one after the other.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    fn read(cursor: &mut Cursor<'a>, depth: usize) -> Result<Array<'a>> {
        const LENGTH: &str = "length of an array";
        if depth == 0 {
            let want = format_args!("at most {MAX_DEPTH}");
            return wrong("depth of arrays in each other", MAX_DEPTH + 1, want);
        }
        let kind = ValueType::of(cursor.u32("the type of an array")?)?;
        let len = cursor.count(kind.least(), LENGTH)?;
        let mut rest = cursor.clone();
        let start = rest.at();
        match kind.bytes() {
            // `count` has checked that so many bytes are there.
            Some(bytes) if kind != ValueType::Bool => drop(rest.take((len * bytes) as u64, LENGTH)?),
            _ => (0..len).try_for_each(|_| Value::read_in(&mut rest, kind, depth - 1).map(drop))?,
        }
        let bytes = cursor.take((rest.at() - start) as u64, LENGTH)?;
        Ok(Array { kind, len, bytes })
    }

    /// The type of the elements.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `i`. **Cost**: none for numbers; texts and arrays are counted from the first one on, so that
    /// [`Array::iter`] reads all of them faster.
    pub fn get(&self, i: usize) -> Option<Value<'a>> {
        let Some(bytes) = self.kind.bytes() else { return self.iter().nth(i) };
        let place = i.checked_mul(bytes).filter(|_| i < self.len)?;
        Value::read(&mut Cursor::new(self.bytes.get(place..)?), self.kind).ok()
    }

    /// The elements in order.
    pub fn iter(&self) -> Elements<'a> {
        Elements { kind: self.kind, left: self.len, cursor: Cursor::new(self.bytes) }
    }

    /// The values as they lie in the file.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.kind, self.len)
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

/// The elements of an [`Array`] in order.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    kind: ValueType,
    left: usize,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::read(&mut self.cursor, self.kind).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}
