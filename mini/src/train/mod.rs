//! Training on the library's products.
//!
//! ```text
//! tokens -> Batches -> Trainer::step: forward, loss, backward -> Adam -> weights
//! ```
//! A product `Y = X W^T` has the gradients `dX = dY W` and `dW = dY^T X`: transposed views, no copies. Sums
//! that are written here run in one stated order, so that the weights are the same bits on any number of
//! threads and every instruction set.

mod adam;
mod attention;
mod backward;
mod batches;
mod checkpoint;
mod forward;
mod products;
mod recipe;
mod rows;
mod schedule;
mod trainer;

pub use adam::{Adam, clip};
pub use batches::Batches;
pub use checkpoint::{Checkpoint, Header};
pub use recipe::Recipe;
pub use schedule::Schedule;
pub use trainer::{StepReport, Trainer};
