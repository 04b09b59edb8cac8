//! Timing, the machine's ceilings and the tables of the `speed` commands.
//!
//! Candidates run interleaved in one process, and every figure is a median or a best of
//! many: these numbers are for ratios, not for absolute claims.

pub mod ceilings;
pub mod crowd;
#[cfg(feature = "peers")]
mod peers;
#[cfg(feature = "peers")]
pub mod regions;
pub mod speed;
pub mod timing;
