//! The measurements on disk: CSV tables and one JSON file.
//!
//! Every row is a plain struct whose fields are the columns, in order.
//! Timings stand only in `bench*.csv`; `accuracy_drop.json` has none, so its
//! bytes are the same in every run.

mod accuracy;
mod rows;
mod table;

pub use accuracy::{AccuracyDrop, accuracy_drops, read_accuracy, write_accuracy};
pub use rows::{BenchRow, ContextRow, MemoryRow, NO_CACHE, QuantRow, WITH_CACHE};
pub use table::{read_rows, write_rows};
