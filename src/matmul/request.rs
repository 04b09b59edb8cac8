//! What a public entry hands to the driver.

use super::pack::{Panels, Source};
use super::patches::Patches;
use crate::epilogue::{Epilogue, Precision};
use crate::view::MatRef;

/// The shape of a product: C is (m, n), and k is summed over.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// Arguments of one product.
pub(super) struct Request<'a> {
    pub precision: Precision,
    /// A, or its shape alone where it is made of patches.
    pub a: MatRef<'a>,
    pub patches: Option<&'a Patches<'a>>,
    pub b: Source<'a>,
    /// A second B whose product is the factor of the gated one.
    pub up: Option<Panels<'a>>,
    pub epilogue: Epilogue<'a>,
}
