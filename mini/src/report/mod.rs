//! The measurements on disk: CSV tables and one JSON file.
//!
//! Every row is a plain struct whose fields are the columns, in order. Timings stand only in `bench*.csv` and
//! in `timings/`; the other files have none, so their bytes are the same in every run.

mod accuracy;
mod metrics;
pub mod outputs;
mod rows;
mod table;

pub use accuracy::{AccuracyDrop, accuracy_drops, read_accuracy, write_accuracy};
pub use metrics::{FormatMetrics, Metrics, TextMetrics, read_metrics, write_metrics};
pub use rows::{BenchRow, ContextRow, LossRow, MemoryRow, NO_CACHE, QuantRow, TrainingRow, WITH_CACHE};
pub use table::{read_rows, write_rows};
