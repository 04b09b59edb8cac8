//! Options of `peak-memory`.

use clap::Args;

use super::model::ModelArgs;
use crate::model::Quant;

/// Options of `peak-memory`.
#[derive(Args, Clone, Debug)]
pub struct PeakArgs {
    /// Weight format
    #[arg(long, value_enum, default_value_t = Quant::Fp32)]
    pub quant: Quant,
    /// Size and seed of the model.
    #[command(flatten)]
    pub model: ModelArgs,
}
